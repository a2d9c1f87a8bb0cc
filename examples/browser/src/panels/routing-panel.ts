import { barRow } from "../charts/bar-rows.js";
import { gradient } from "../charts/color-scale.js";
import { type Cell, HeatMap } from "../charts/heat-map.js";
import { announce, byId, element, showMessage } from "../dom.js";
import { formatCount, formatPercent } from "../format.js";
import type { Client } from "../remote/client.js";
import type { RoutedText } from "../remote/protocol.js";
import { byteName, byteSign } from "./byte-names.js";
import { axisProbabilities, heatMapOf, topExperts } from "./routing-view.js";
import { TokenList } from "./token-list.js";

/** How long to wait for the next key before a sentence is routed. */
const typingMilliseconds = 120;
/** How often, at most, the map follows a model that learns. */
const followMilliseconds = 1200;

/** A sentence, its bytes, and the experts that each of them goes to. */
export class RoutingPanel {
  readonly #client: Client;
  readonly #sentence = byId("sentence", HTMLInputElement);
  readonly #error = byId("routing-error", HTMLElement);
  readonly #map = new HeatMap(byId("heat-map", HTMLCanvasElement));
  readonly #tokens = new TokenList(byId("tokens", HTMLElement), byId("all-tokens", HTMLButtonElement));
  #routed: RoutedText | undefined;
  /** The one under the pointer. */
  #cell: Cell | undefined;
  #ready = false;
  #asked = 0;
  #busy = false;
  #followed = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(client: Client) {
    this.#client = client;
    byId("sentence-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      void this.route();
    });
    this.#sentence.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.route(), typingMilliseconds);
    });
    this.#tokens.onChange = (passing) => {
      this.#show();
      if (!passing) announce(byId("routing-readout", HTMLElement).textContent ?? "");
    };
    this.#map.onCell = (cell) => {
      this.#cell = cell;
      this.#showCell();
    };
  }

  set ready(ready: boolean) {
    this.#ready = ready;
  }

  /** Asks the model where the sentence goes now. Of several questions at once the last counts. */
  async route(): Promise<void> {
    if (!this.#ready) return;
    const text = this.#sentence.value;
    const asked = ++this.#asked;
    if (text === "") {
      showMessage(this.#error, "Type a sentence: there is no byte to route.");
      return;
    }
    try {
      const routed = await this.#client.run("route", text);
      if (asked !== this.#asked) return;
      const isOther = String(this.#routed?.bytes) !== String(routed.bytes);
      this.#routed = routed;
      if (isOther) this.#tokens.show(routed.bytes);
      showMessage(this.#error, undefined);
      this.#show();
    } catch (error) {
      if (asked === this.#asked && this.#ready) showMessage(this.#error, (error as Error).message);
    }
  }

  /** The model has learnt a little more. */
  async follow(): Promise<void> {
    if (this.#busy || performance.now() - this.#followed < followMilliseconds) return;
    this.#busy = true;
    await this.route();
    this.#busy = false;
    this.#followed = performance.now();
  }

  #show(): void {
    const routed = this.#routed;
    if (routed === undefined) return;
    const token = this.#tokens.chosen;
    const data = heatMapOf(routed, token);
    this.#map.show(data);
    byId("routing-k", HTMLElement).textContent = String(routed.topK);
    const learnt =
      routed.steps === 0 ? "before any training" : `after ${formatCount(routed.steps)} steps of training`;
    const lit = data.values.reduce((count, value) => count + (value > 0 ? 1 : 0), 0);
    const total = formatCount(routed.keysX * routed.keysY);
    const what =
      token === undefined
        ? `All ${routed.bytes.length} bytes: ${formatCount(lit)} of ${total} experts, ${learnt}.`
        : `After ${byteName(routed.bytes[token])}, byte ${token + 1} of ${routed.bytes.length}: ` +
          `${lit} of ${total} experts, ${learnt}.`;
    byId("routing-readout", HTMLElement).textContent = what;
    byId("heat-map", HTMLElement).ariaLabel =
      `Heat map of the expert grid, ${routed.keysX} rows by ${routed.keysY} columns. ${what}`;
    this.#showLegend(data.largest, token === undefined);
    this.#showExperts(routed, token);
    this.#showCell();
  }

  #showLegend(largest: number, all: boolean): void {
    // Evenly spaced on the scale, which goes with the square root.
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => (share * share * largest).toPrecision(2));
    const ramp = element("span", { className: "legend-ramp" });
    ramp.style.background = gradient();
    byId("heat-legend", HTMLElement).replaceChildren(
      element("div", { className: "legend-row" }, [
        element("span", { className: "legend-none", textContent: "not chosen" }),
        ramp,
        element(
          "span",
          { className: "legend-ticks" },
          ticks.map((tick) => element("span", { textContent: String(Number(tick)) })),
        ),
      ]),
      all
        ? "sum of the routing weights of all bytes"
        : "routing weight; bars at the edges: probability of each row and column",
    );
  }

  #showExperts(routed: RoutedText, token: number | undefined): void {
    const experts = topExperts(routed, token, 10);
    byId("experts-caption", HTMLElement).textContent =
      token === undefined
        ? "The experts that weigh most in the sentence"
        : `The experts that weigh most after “${byteSign(routed.bytes[token])}”`;
    const largest = experts[0]?.value ?? 1;
    byId("expert-table", HTMLTableElement).tBodies[0].replaceChildren(
      ...experts.map(({ row, column, value }) =>
        barRow(`${row}, ${column}`, value.toFixed(3), value / largest),
      ),
    );
  }

  #showCell(): void {
    const cell = this.#cell;
    const routed = this.#routed;
    const readout = byId("cell-readout", HTMLElement);
    if (cell === undefined || routed === undefined) {
      readout.textContent = "";
      return;
    }
    const id = cell.row * routed.keysY + cell.column;
    const uses = routed.ids.reduce((count, chosen) => count + (chosen === id ? 1 : 0), 0);
    const token = this.#tokens.chosen;
    const strength =
      token === undefined
        ? ""
        : `, row ${formatPercent(axisProbabilities(routed, token).rows[cell.row])}` +
          `, column ${formatPercent(axisProbabilities(routed, token).columns[cell.column])}`;
    readout.textContent =
      `Expert ${formatCount(id)}, row ${cell.row}, column ${cell.column}: ` +
      `chosen after ${uses} of ${routed.bytes.length} bytes${strength}`;
  }
}
