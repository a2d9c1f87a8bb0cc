import { type BackendProvider, FlashMoeError } from "@flash-moe/core";
import {
  type ConformanceReport,
  type ConformanceResult,
  runConformance,
} from "@flash-moe/reference/conformance";
import { findProvider, openBackend } from "../../backends/open-backend.js";
import { type BackendChoice, backendOptions, chosenProvider, openChosenBackend } from "../backend-option.js";
import { type Command, type CommandContext, defineCommand } from "../command.js";
import { formatCount, formatSeconds } from "../format.js";
import { flag, integer, optional, text, withDefault } from "../options.js";
import { formatTable } from "../table.js";

/** `flash-moe verify`: is a backend right, on this device? */
export const verify: Command = defineCommand({
  name: "verify",
  summary: "the conformance suite of a backend, here, on this device",
  options: {
    ...backendOptions(),
    large: flag("also the cases that need gigabytes"),
    timeout: withDefault(
      integer("S", "seconds after which a case counts as hanging, and fails", 1, 86_400),
      300,
    ),
    only: optional(text("TEXT", "only cases whose id contains this, for instance experts-backward/bf16")),
  },
  notes: [
    "Every backend is held to the same cases and tolerances; a case is skipped only for a capability that the " +
      "backend declares not to have, and that is told. The exit code is 1 if a case failed, and also if none ran.",
    "A backend that hangs is told after --timeout; --only finds the case sooner.",
  ],
  async run(values, context) {
    const named = await chosenProvider(values, context);
    const provider = named ?? (await automaticProvider(values, context));
    const only = values.only;
    const results: ConformanceResult[] = [];
    const failures = () => results.filter(({ status }) => status === "failed");
    let told = named === undefined;
    const opened: BackendProvider = {
      name: provider.name,
      probe: (options) => provider.probe(options),
      async open(options) {
        const backend = await openBackend(provider.name, {
          providers: [provider],
          options: { [provider.name]: options },
        });
        if (!told) context.say(`backend ${backend.name} on ${backend.device}`);
        told = true;
        return backend;
      },
    };
    const report = await runConformance(opened, {
      required: true,
      caseMilliseconds: 1000 * values.timeout,
      large: values.large,
      filter: only === undefined ? undefined : (id) => id.includes(only),
      signal: context.signal,
      onResult: (result) => {
        results.push(result);
        const counts = `${formatCount(results.length)} cases, ${failures().length} failed`;
        context.status.show(`${counts}  ${result.id}`, "verify");
      },
    }).catch((error) => {
      // What was found before is not lost with an interruption: a backend that hangs is mostly ended by one.
      for (const failure of failures()) context.say(describeFailure(failure));
      throw error;
    });
    const [first] = report.results;
    if (first?.id === "open" && first.error !== undefined) throw first.error;
    if (first === undefined) {
      throw new FlashMoeError("INVALID_ARGUMENT", `--only ${only}: no case has an id that contains it`);
    }
    context.report(describe(report), toJson(report));
    return report.ok ? 0 : 1;
  },
});

/** What auto takes: opened once for the choice and its reasons; the suite opens backends of its own. */
async function automaticProvider(choice: BackendChoice, context: CommandContext): Promise<BackendProvider> {
  const chosen = await openChosenBackend(choice, context);
  await chosen.dispose();
  return findProvider(chosen.name);
}

function describe(report: ConformanceReport): string {
  const header = ["", "passed", "failed", "skipped", "of tolerance", "time"];
  const rows = [...groupByTopic(report.results)].map(([topic, results]) => summarise(topic, results));
  const sections = [formatTable([header, ...rows, summarise("all", report.results)], "lrrrrr")];
  const failed = report.results.filter((result) => result.status === "failed");
  if (failed.length > 0) {
    sections.push(failed.map((result) => `${describeFailure(result)}\n`).join(""));
  }
  const skips = countReasons(report.results);
  if (skips.length > 0) sections.push(`skipped, because the backend\n${formatTable(skips, "r")}`);
  sections.push(
    `${report.backend} on ${report.device}: ${report.ok ? "conforms" : "DOES NOT CONFORM"}, ` +
      `${report.passed} passed, ${report.failed} failed, ${report.skipped} skipped\n`,
  );
  return sections.join("\n");
}

function describeFailure(result: ConformanceResult): string {
  return `FAILED ${result.id}\n  ${messageOf(result).replaceAll("\n", "\n  ")}`;
}

/** Ids begin with their topic, mostly an op. */
function groupByTopic(results: readonly ConformanceResult[]): Map<string, ConformanceResult[]> {
  const groups = new Map<string, ConformanceResult[]>();
  for (const result of results) {
    const topic = result.id.split("/")[0];
    const group = groups.get(topic);
    if (group === undefined) groups.set(topic, [result]);
    else group.push(result);
  }
  return groups;
}

function summarise(topic: string, results: readonly ConformanceResult[]): string[] {
  const count = (status: ConformanceResult["status"]): string => {
    const number = results.filter((result) => result.status === status).length;
    return number === 0 && status !== "passed" ? "" : formatCount(number);
  };
  const budgets = results.flatMap(({ worst }) => (worst === undefined ? [] : [worst.budget]));
  const used = budgets.length === 0 ? "" : `${Math.ceil(100 * Math.max(...budgets))}%`;
  const milliseconds = results.reduce((sum, result) => sum + result.milliseconds, 0);
  return [
    topic,
    count("passed"),
    count("failed"),
    count("skipped"),
    used,
    formatSeconds(milliseconds / 1000),
  ];
}

function countReasons(results: readonly ConformanceResult[]): string[][] {
  const reasons = new Map<string, number>();
  for (const { status, reason = "gives no reason" } of results) {
    if (status === "skipped") reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  }
  return [...reasons].map(([reason, number]) => [formatCount(number), reason]);
}

function messageOf({ error }: ConformanceResult): string {
  if (error === undefined) return "no error was given";
  return FlashMoeError.is(error) ? `${error.code}: ${error.message}` : error.message;
}

function toJson({ results, ...summary }: ConformanceReport): unknown {
  return {
    ...summary,
    results: results.map(({ id, status, reason, worst, milliseconds, error }) => ({
      id,
      status,
      milliseconds,
      reason,
      worst,
      error: error === undefined ? undefined : messageOf({ id, status, milliseconds, error }),
    })),
  };
}
