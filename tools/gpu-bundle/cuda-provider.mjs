// The CUDA backend; in a bundle for the CPU shim, the shim.
import { cuda } from "@flash-moe/backend-cuda";

const binary = process.env.FLASH_MOE_BUNDLE_BINARY || undefined;

export default {
  name: "cuda",
  probe: (options = {}) => cuda.probe({ binary, ...options }),
  open: (options = {}) => cuda.open({ binary, ...options }),
};
