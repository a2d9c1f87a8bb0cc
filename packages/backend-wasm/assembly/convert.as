// Between the storage dtypes: inputs are decoded exactly, outputs rounded once (nearest, ties to even).

import { F16, F32, load1, load4, store1, store4 } from "./simd";

function convertOf<S, T>(count: usize, source: usize, target: usize): void {
  let n: usize = 0;
  for (; n + 4 <= count; n += 4) store4<T>(target + n * sizeof<T>(), load4<S>(source + n * sizeof<S>()));
  for (; n < count; n++) store1<T>(target + n * sizeof<T>(), load1<S>(source + n * sizeof<S>()));
}

/** target = source; one of the two is f32. */
export function convert(count: usize, fromDType: i32, source: usize, toDType: i32, target: usize): void {
  if (fromDType == F32) {
    if (toDType == F32) memory.copy(target, source, count * 4);
    else if (toDType == F16) convertOf<f32, u16>(count, source, target);
    else convertOf<f32, i16>(count, source, target);
  } else if (fromDType == F16) convertOf<u16, f32>(count, source, target);
  else convertOf<i16, f32>(count, source, target);
}
