// Reports an id that is out of range, for the host to find at its next await: four words per slot, the first
// claimed by whoever comes first, so that place and value belong together.
fn report(slot: u32, place: u32, value: u32) {
  loop {
    let claim = atomicCompareExchangeWeak(&errors[4u * slot], 0u, place + 1u);
    if (claim.exchanged) {
      atomicStore(&errors[4u * slot + 1u], value);
      break;
    }
    if (claim.old_value != 0u) {
      break;
    }
  }
}
