import { element } from "../dom.js";

/** What to tell somebody whose browser offers no WebGPU: why, what helps, and that the page works all the same. */
export function explainMissingWebGpu(reason: string): readonly HTMLElement[] {
  const advice = adviceFor(window.isSecureContext, "gpu" in navigator);
  return [
    element("div", {}, [
      element("p", {}, [element("strong", { textContent: "There is no WebGPU here. " }), advice.cause]),
      element(
        "ul",
        {},
        advice.steps.map((step) => element("li", { textContent: step })),
      ),
      element("p", {}, [
        "Everything below also runs on ",
        element("strong", { textContent: "WebAssembly" }),
        ", on the CPU: smaller grids and fewer steps keep it quick.",
      ]),
      element("p", { className: "hint", textContent: `What the backend says: ${reason}` }),
    ]),
  ];
}

interface Advice {
  readonly cause: string;
  readonly steps: readonly string[];
}

function adviceFor(secure: boolean, present: boolean): Advice {
  if (!secure) {
    return {
      cause: "Browsers offer it to secure pages only, and this one came over plain http.",
      steps: ["Open the page over https, or from localhost."],
    };
  }
  if (!present) {
    return {
      cause: "This browser does not offer it.",
      steps: [
        "Use a current Chrome, Edge, or Safari 26; Firefox has it on Windows and on Macs with Apple silicon.",
        "In Chrome on Linux, chrome://flags/#enable-unsafe-webgpu turns it on where it is still off.",
      ],
    };
  }
  return {
    cause: "The browser has it but finds no GPU for it.",
    steps: [
      "Turn on hardware acceleration in the browser’s settings, and restart it.",
      "Update the driver of the graphics card; chrome://gpu says what the browser thinks of it.",
      "On Linux, a Vulkan driver is needed, and in Chrome perhaps chrome://flags/#enable-unsafe-webgpu.",
    ],
  };
}
