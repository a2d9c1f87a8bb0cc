import { describe } from "./describe.js";
import { FlashMoeError } from "./errors.js";

/** What an option of a provider may be. */
export interface OptionRule {
  /** For messages: "a whole number from 1 to 64". */
  readonly takes: string;
  accepts(value: unknown): boolean;
}

/** The kinds of options that most providers have; any other is an object of the same shape. */
export const takes = {
  flag: { takes: "true or false", accepts: (value) => typeof value === "boolean" } as OptionRule,

  text: { takes: "text", accepts: (value) => typeof value === "string" && value !== "" } as OptionRule,

  wholeNumber(low: number, high: number = Number.MAX_SAFE_INTEGER): OptionRule {
    const to = high === Number.MAX_SAFE_INTEGER ? "" : ` to ${high}`;
    return {
      takes: `a whole number from ${low}${to}`,
      accepts: (value) =>
        Number.isSafeInteger(value) && (value as number) >= low && (value as number) <= high,
    };
  },

  oneOf(...values: readonly string[]): OptionRule {
    return { takes: values.join(" or "), accepts: (value) => values.some((known) => known === value) };
  },

  /** An object, of an API or with options of its own, that has all of these methods. */
  object(what: string, ...methods: readonly string[]): OptionRule {
    return {
      takes: what,
      accepts: (value) =>
        typeof value === "object" &&
        value !== null &&
        methods.every((name) => typeof (value as Record<string, unknown>)[name] === "function"),
    };
  },
} as const;

/**
 * For `probe` and `open` of a provider: INVALID_ARGUMENT, naming the option, what it is and what would be
 * accepted, for an option without a rule or against its rule. An option that is undefined counts as absent.
 */
export function checkOptions<Options extends object>(
  backend: string,
  options: Options,
  rules: { readonly [Name in keyof Options]-?: OptionRule },
): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new FlashMoeError("INVALID_ARGUMENT", `${backend}: options is ${quoted(options)}; takes an object`);
  }
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(rules, name)) {
      const known = Object.keys(rules);
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `${backend} has no option ${name}; takes ${known.length === 0 ? "none" : known.join(", ")}`,
      );
    }
    const rule = rules[name as keyof Options];
    if (value !== undefined && !rule.accepts(value)) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `${backend}: ${name} is ${quoted(value)}; takes ${rule.takes}`,
      );
    }
  }
}

/** A number that came as text must show as such. */
function quoted(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : describe(value);
}
