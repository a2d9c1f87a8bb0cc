/** The page: panels around one worker, which owns the device. */
import "./styles/tokens.css";
import "./styles/page.css";
import "./styles/controls.css";
import "./styles/figures.css";
import { byId, showMessage } from "./dom.js";
import { ContinuationPanel } from "./panels/continuation-panel.js";
import { DevicePanel } from "./panels/device-panel.js";
import { LayerPanel } from "./panels/layer-panel.js";
import { ModelPanel } from "./panels/model-panel.js";
import { RoutingPanel } from "./panels/routing-panel.js";
import { TrainingPanel } from "./panels/training-panel.js";
import { Client } from "./remote/client.js";

const client = new Client();
const device = new DevicePanel(client);
const layer = new LayerPanel(client, device);
const routing = new RoutingPanel(client);
const model = new ModelPanel(client);
const training = new TrainingPanel(client, device, model);
const continuation = new ContinuationPanel(client);

device.onOpen = async (fresh) => {
  layer.ready = true;
  if (fresh) clearErrors();
  // On a change of the backend the model moves along; what it computes is seen to stay the same.
  if (fresh) await model.create();
  else await routing.route();
};
device.onLost = () => {
  for (const panel of [layer, routing, training]) panel.ready = false;
  model.enabled = false;
  continuation.enabled = false;
};
model.onModel = ({ memory }) => {
  device.showMemory(memory);
  routing.ready = true;
  training.ready = true;
  continuation.enabled = true;
  void routing.route();
};
/** What went wrong on a device that is gone is over. */
function clearErrors(): void {
  for (const message of document.querySelectorAll<HTMLElement>(".error")) showMessage(message, undefined);
}

// Somebody who asks for little motion sees the map move when training ends, and the text when it is asked for.
const still = matchMedia("(prefers-reduced-motion: reduce)");
if (still.matches) byId("generate-live", HTMLInputElement).checked = false;
training.onLearn = () => {
  if (!still.matches) void routing.follow();
  void continuation.follow();
};
training.onEnd = () => void routing.route();

device.start().catch((error: Error) => showMessage(byId("device-error", HTMLElement), error.message));
