// jax-js projects and activates, flash-moe runs its layer, jax-js goes on: one device, one queue, no copy between.
import { FlashMoE } from "flash-moe";
import { openJax } from "./jax-in-node.mjs";
import { applyLayer, openOnDeviceOf } from "./shared-layer.mjs";

const [tokens, hiddenSize] = [64, 128];
const jax = await openJax();
const { numpy: np, nn, random } = jax;
const backend = await openOnDeviceOf(jax);
const layer = await FlashMoE.create(backend, {
  hiddenSize,
  intermediateSize: 256,
  keysX: 64,
  keysY: 64,
  topK: 16,
});
console.log(`jax-js and flash-moe on ${backend.device}`);

const [inputKey, weightKey] = random.split(random.key(0), 2);
const inputs = random.normal(inputKey, [tokens, hiddenSize]);
const weight = random.normal(weightKey, [hiddenSize, hiddenSize]);

const hidden = np.tanh(np.matmul(inputs, weight)); // jax-js
const mixed = await applyLayer(jax, layer, hidden.ref); // flash-moe
const probabilities = nn.softmax(np.add(hidden, mixed), -1); // jax-js again, with a residual

const sums = await np.sum(probabilities, -1).data();
console.log(`${tokens} rows of probabilities, whose sums are ${Math.min(...sums)} to ${Math.max(...sums)}`);
layer.dispose();
await backend.dispose();
