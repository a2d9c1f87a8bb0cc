import { backendOptions, withBackend } from "../backend-option.js";
import { describeBench } from "../bench/describe.js";
import { measureDevice } from "../bench/device-rates.js";
import { fastestDType, type PresetName, presets } from "../bench/presets.js";
import { type BenchRow, BenchSuite } from "../bench/suite.js";
import { type Command, defineCommand } from "../command.js";
import { dtypeOption, longName } from "../layer-options.js";
import { choice, decimal, optional, withDefault } from "../options.js";

const presetNames = Object.keys(presets) as PresetName[];

/** `flash-moe bench`: how fast, and how fast it could be. */
export const bench: Command = defineCommand({
  name: "bench",
  summary: "how long the layer takes, against what the device itself can do",
  options: {
    ...backendOptions(),
    preset: withDefault(
      choice(
        "P",
        presetNames.map((name) => `${name}: ${presets[name].about}`).join("; "),
        Object.fromEntries(presetNames.map((name) => [name, name])) as Record<PresetName, PresetName>,
      ),
      "small",
    ),
    dtype: optional(
      dtypeOption("storage dtype (default: bfloat16 or float16 where accelerated, else float32)"),
    ),
    seconds: withDefault(decimal("S", "about how long one measurement may take", 0, { above: true }), 2),
  },
  notes: [
    "Medians, warmed up. Bytes and operations are what the maths needs at least (a row of an expert table counts " +
      "each time it is used), so that the fractions say how far it is to the rates of copying and of a matrix " +
      "product, which are measured in the same run. A size that does not fit, or would take longer than --seconds " +
      "allows, is skipped and told.",
  ],
  run: (values, context) =>
    withBackend(values, context, async (backend) => {
      const dtype = values.dtype ?? fastestDType(backend.capabilities.dtypes);
      const { about, sizes } = presets[values.preset];
      context.status.show("measuring copy and matrix product", "device");
      const device = await measureDevice(backend, dtype, context.signal);
      const suite = new BenchSuite(backend, dtype, device, values.seconds, context);
      const rows: BenchRow[] = [];
      try {
        for (const size of sizes) rows.push(...(await suite.run(size)));
      } finally {
        suite.dispose();
      }
      context.report(describeBench(backend, dtype, `${values.preset} (${about})`, device, rows), {
        backend: backend.name,
        device: backend.device,
        preset: values.preset,
        dtype: longName(dtype),
        ...device,
        rows,
      });
      return 0;
    }),
});
