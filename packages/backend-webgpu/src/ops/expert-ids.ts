import type { OpContext } from "../op-context.js";

/** The slot in which a kernel reports an expert id that is none. */
export function describeExpertId(context: OpContext, topK: number, numExperts: number): number {
  const { op } = context;
  return context.idErrorSlot(`${topK} of ${numExperts}`, (pair, id) => {
    const token = Math.floor(pair / topK);
    return (
      `${op}: ids holds ${id} for token ${token}, slot ${pair - token * topK}; ` +
      `takes expert ids from 0 to ${numExperts - 1}`
    );
  });
}
