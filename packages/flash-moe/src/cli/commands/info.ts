import type { Backend, BackendProvider, FloatDType, MemoryReport } from "@flash-moe/core";
import { floatDTypes, opNames } from "@flash-moe/core";
import { builtInBackends, openBackend, probeBackends } from "../../backends/open-backend.js";
import { type BackendChoice, backendOptions, chosenProvider } from "../backend-option.js";
import { type Command, type CommandContext, defineCommand } from "../command.js";
import { formatBytes, formatCount } from "../format.js";
import { formatTable } from "../table.js";
import { UsageError } from "../usage-error.js";
import { packageVersion } from "../version.js";

/** What is told of one backend. */
interface BackendInfo {
  readonly name: string;
  readonly available: boolean;
  /** Why it is not available. */
  readonly reason?: string;
  readonly device?: string;
  /** A GPU interface that computes on the CPU. */
  readonly software?: boolean;
  /** What it can do; absent if it could not be opened. */
  readonly dtypes?: Readonly<Record<FloatDType, readonly string[]>>;
  readonly ops?: readonly string[];
  readonly deterministic?: boolean;
  readonly maxBufferBytes?: number;
  readonly maxKeysPerAxis?: number;
  readonly timestamps?: boolean;
  readonly mlpIntermediate?: string;
  readonly memory?: MemoryReport;
}

/** `flash-moe info`: what there is to compute on. */
export const info: Command = defineCommand({
  name: "info",
  summary: "every backend: available or why not, device, dtypes, limits, memory",
  options: backendOptions("all"),
  notes: ["A backend that is not available, or fails, is told as such: the exit code is 0 all the same."],
  async run(values, context) {
    const infos =
      values.backend === "all" && values["backend-options"] === undefined
        ? await Promise.all(builtInBackends.map(inspectProvider))
        : [await inspectChosen(values, context)];
    const auto = infos.find((found) => found.available && found.software !== true)?.name ?? null;
    const version = packageVersion();
    const text = [
      `flash-moe ${version}, node ${process.version}, ${process.platform} ${process.arch}\n`,
      formatTable(infos.flatMap(describe)),
      ...(values.backend === "all" ? [`--backend auto takes ${auto ?? "none"}\n`] : []),
    ];
    context.report(text.join("\n"), {
      version,
      node: process.version,
      platform: process.platform,
      arch: process.arch,
      auto,
      backends: infos,
    });
    return 0;
  },
});

async function inspectProvider(provider: BackendProvider): Promise<BackendInfo> {
  const { name } = provider;
  const [{ probe }] = await probeBackends([provider]);
  if (!probe.available) return { name, available: false, reason: probe.reason };
  const { device, software = false } = probe;
  return inspectOpen(name, () => provider.open(), { device, software });
}

async function inspectChosen(choice: BackendChoice, context: CommandContext): Promise<BackendInfo> {
  const open = async (): Promise<Backend> => {
    const provider = await chosenProvider(choice, context);
    return openBackend(provider?.name, { providers: provider === undefined ? undefined : [provider] });
  };
  return inspectOpen(choice.backend, open, {});
}

/** Opens it, for what only an open backend can say. */
async function inspectOpen(
  name: string,
  open: () => Promise<Backend>,
  probed: Pick<BackendInfo, "device" | "software">,
): Promise<BackendInfo> {
  try {
    const backend = await open();
    const { dtypes, ops, ...capabilities } = backend.capabilities;
    const uses = floatDTypes.map((dtype) => [dtype, [...dtypes[dtype]]]);
    const found: BackendInfo = {
      name: backend.name,
      available: true,
      ...probed,
      device: backend.device,
      dtypes: Object.fromEntries(uses) as Record<FloatDType, string[]>,
      ops: opNames.filter((op) => ops.has(op)),
      deterministic: capabilities.deterministic,
      maxBufferBytes: capabilities.maxBufferBytes,
      maxKeysPerAxis: capabilities.maxKeysPerAxis,
      timestamps: capabilities.timestamps,
      mlpIntermediate: capabilities.mlpIntermediate,
      memory: backend.memory(),
    };
    await backend.dispose();
    return found;
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    return { name, available: false, ...probed, reason };
  }
}

function describe(found: BackendInfo): string[][] {
  const { dtypes, ops, memory } = found;
  if (!found.available || dtypes === undefined || ops === undefined || memory === undefined) {
    return [[found.name, `not available: ${found.reason}`]];
  }
  const stored = floatDTypes.filter((dtype) => dtypes[dtype].length > 0);
  const absent = opNames.filter((op) => !ops.includes(op));
  const limit = memory.limitBytes === null ? "a limit it does not tell" : formatBytes(memory.limitBytes);
  const facts: [string, string][] = [
    ["device", `${found.device}${found.software ? " (software: only when asked for by name)" : ""}`],
    ["dtypes", stored.map((dtype) => `${dtype} (${dtypes[dtype].join(", ")})`).join(", ")],
    ["ops", absent.length === 0 ? `all ${opNames.length}` : `all but ${absent.join(", ")}`],
    ["memory", `${formatBytes(memory.liveBytes)} in use, of ${limit}`],
    ["largest buffer", formatBytes(found.maxBufferBytes ?? 0)],
    ["keys per axis", `up to ${formatCount(found.maxKeysPerAxis ?? 0)}`],
    ["same bits every run", found.deterministic ? "yes" : "no"],
  ];
  return [[found.name, "available"], ...facts.map(([what, value]) => ["", `${what.padEnd(20)} ${value}`])];
}
