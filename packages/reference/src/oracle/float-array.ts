/** Numbers as the oracle takes them where either precision will do; it computes in float64 all the same. */
export type FloatArray = Float32Array | Float64Array;
