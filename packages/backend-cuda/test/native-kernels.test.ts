// Every kernel compiled for every architecture, and what the compiler said of it.
import { requiredBackends } from "@flash-moe/reference/conformance";
import { expect, it } from "vitest";
import { build } from "../build-tools/build.mjs";
import { checkResources, parseLog, serializationProblems, spillProblems } from "../build-tools/resources.mjs";

const required = requiredBackends(process.env.FLASH_MOE_REQUIRE).has("cuda-build");
const absent = "compiling takes minutes: FLASH_MOE_REQUIRE=cuda-build, for which nvcc is needed";

it("nvcc compiles all kernels, and none spills registers that is not allowed to", async ({ skip }) => {
  if (!required) skip(absent);
  const built = await build({ target: "cuda" });
  await checkResources(built, { update: false, log: () => {} });
}, 1_800_000);

const log = `ptxas info    : Compiling entry function '_Z5firstv' for 'sm_90a'
ptxas info    : Function properties for _Z5firstv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 27 registers, used 1 barriers, 128 bytes smem
ptxas info    : Compiling entry function '_Z6secondv' for 'sm_80'
ptxas info    : Function properties for _Z6secondv
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
`;

it("reads what ptxas says", () => {
  expect(parseLog(log)).toEqual([
    { kernel: "_Z5firstv", architecture: 90, registers: 27, shared: 128, stack: 0, spilled: 0 },
    { kernel: "_Z6secondv", architecture: 80, registers: 255, shared: 0, stack: 16, spilled: 12 },
  ]);
});

it("a spill needs a reason, and a reason needs a spill", () => {
  const found = [
    { kernel: "hot<f16, 8>", architecture: 90, registers: 255, shared: 0, stack: 8, spilled: 8 },
    { kernel: "calm", architecture: 90, registers: 32, shared: 0, stack: 0, spilled: 0 },
  ];
  expect(spillProblems(found, {})).toEqual([expect.stringMatching(/^hot<f16, 8> spills 8 bytes on sm_90/)]);
  expect(spillProblems(found, { hot: "once at the end of a step" })).toEqual([]);
  expect(spillProblems(found, { "hot<f16, 8>": "once at the end of a step" })).toEqual([]);
  expect(spillProblems(found, { hot: "why", calm: "why" })).toEqual([expect.stringContaining("allows calm")]);
});

it("products by wgmma that wait for one another are a problem", () => {
  const information =
    "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to " +
    "insufficient register resources for the wgmma pipeline in the function '_Z6secondv'";
  expect(serializationProblems(`${log}${information}\n`)).toEqual([information]);
  expect(serializationProblems(log)).toEqual([]);
});
