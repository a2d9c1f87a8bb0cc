import { generate as generateBytes, loadLanguageModel } from "../../language-model/index.js";
import { backendOptions, withBackend } from "../backend-option.js";
import { type Command, defineCommand } from "../command.js";
import { decimal, integer, path, text, withDefault } from "../options.js";

/** `flash-moe generate`: a trained model continues a prompt. */
export const generate: Command = defineCommand({
  name: "generate",
  summary: "a model that flash-moe train made continues a prompt",
  options: {
    checkpoint: path("F", "the model (safetensors)"),
    prompt: text("S", "the text to continue"),
    tokens: withDefault(integer("N", "how many bytes to make", 0), 400),
    temperature: withDefault(decimal("T", "0 always takes the likeliest byte", 0), 0.8),
    seed: withDefault(integer("S", "the same seed gives the same text", 0, 2 ** 32 - 1), 0),
    ...backendOptions(),
  },
  run: (values, context) =>
    withBackend(values, context, async (backend) => {
      const { io, json, signal, status } = context;
      const { prompt, tokens, temperature, seed } = values;
      const { onProgress } = status;
      const loaded = await loadLanguageModel(context.path(values.checkpoint), {
        backend,
        signal,
        onProgress,
      });
      status.clear();
      // People read while it is made.
      const show = (part: string): void => {
        if (!json) io.stdout(part);
      };
      const decoder = new TextDecoder();
      let continuation = "";
      const add = (part: string): void => {
        continuation += part;
        show(part);
      };
      try {
        show(prompt);
        const bytes = generateBytes(loaded.model, new TextEncoder().encode(prompt), {
          bytes: tokens,
          temperature,
          seed,
          signal,
        });
        for await (const byte of bytes) add(decoder.decode(Uint8Array.of(byte), { stream: true }));
        add(decoder.decode());
      } finally {
        show("\n");
        loaded.model.dispose();
      }
      if (json)
        context.report("", { prompt, continuation, tokens, temperature, seed, backend: backend.name });
      return 0;
    }),
});
