// What the shared MLP does between its matrix products, element by element, in place. All arrays are f32 of `count`
// elements with room for a multiple of four.

import { activate, activationSlope } from "./activation";

/** Forward: gate = act(gate) * up. */
export function mlpGate(count: usize, activation: i32, gate: usize, up: usize): void {
  for (let at: usize = 0; at < count * 4; at += 16) {
    v128.store(gate + at, f32x4.mul(activate(activation, v128.load(gate + at)), v128.load(up + at)));
  }
}

/**
 * Backward: from a = gate, b = up and dh, the gradient of act(a) * b, at once
 *
 *     gate = act(a) * b      up = da = dh * b * act'(a)      dh = db = dh * act(a)
 */
export function mlpGateBackward(count: usize, activation: i32, gate: usize, up: usize, dh: usize): void {
  for (let at: usize = 0; at < count * 4; at += 16) {
    const a = v128.load(gate + at);
    const b = v128.load(up + at);
    const d = v128.load(dh + at);
    const value = activate(activation, a);
    v128.store(gate + at, f32x4.mul(value, b));
    v128.store(up + at, f32x4.mul(f32x4.mul(d, b), activationSlope(activation, a)));
    v128.store(dh + at, f32x4.mul(d, value));
  }
}
