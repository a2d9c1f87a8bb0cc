import type { ConformanceCase } from "../case.js";
import { traitCases } from "../traits.js";
import { adamwCases } from "./adamw.js";
import { batchNormCases } from "./batch-norm.js";
import { bufferCases } from "./buffers.js";
import { capabilityCases } from "./capabilities.js";
import { expertsBackwardCases } from "./experts-backward.js";
import { expertsForwardCases } from "./experts-forward.js";
import { largeCases } from "./large.js";
import { lateErrorCases } from "./late-errors.js";
import { layerCases } from "./layer.js";
import { lifecycleCases } from "./lifecycle.js";
import { linearCases } from "./linear.js";
import { memoryCases } from "./memory.js";
import { mlpCases } from "./mlp.js";
import { repeatabilityCases } from "./repeatability.js";
import { routerSelectCases } from "./router-select.js";
import { timingCases } from "./timing.js";

/** Every case, in the order in which they run: what others build on comes first. */
export const conformanceCases: readonly ConformanceCase[] = [
  ...capabilityCases,
  ...bufferCases,
  ...linearCases,
  ...batchNormCases,
  ...routerSelectCases,
  ...expertsForwardCases,
  ...expertsBackwardCases,
  ...mlpCases,
  ...adamwCases,
  ...layerCases,
  ...repeatabilityCases,
  ...timingCases,
  ...traitCases,
  ...lateErrorCases,
  ...memoryCases,
  ...lifecycleCases,
  ...largeCases,
];
