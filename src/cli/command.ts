import { parseArgs } from 'node:util'
import type { Clock } from '#base/clock.ts'

/** One option of a command, as help, completion and the parser know it. */
export interface Option {
  /** Kebab-case, without dashes. SPIRE's spelling of the same words (`-spiffeID`) is understood too. */
  readonly name: string
  /** What the value is, for help: `ID`, `SECONDS`. Absent: a switch. */
  readonly value?: string
  /** May be given more than once. */
  readonly multiple?: boolean
  readonly required?: boolean
  /** One sentence, lower case, no full stop; says the default. */
  readonly summary: string
}

/** Where a command's output goes and what it is given. */
export interface CommandContext {
  /** Values of options by name; switches are in {@link switches}. */
  readonly values: ReadonlyMap<string, readonly string[]>
  readonly switches: ReadonlySet<string>
  /** What follows the verb and is not an option. */
  readonly positionals: readonly string[]
  readonly json: boolean
  /** Writes one line to standard output. */
  print(line: string): void
  /** Writes one line to standard error: notes that must not disturb what a script reads. */
  note(line: string): void
  /** Reads standard input to its end. */
  readInput(): Promise<string>
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Aborts at SIGINT and SIGTERM. */
  readonly signal: AbortSignal
  readonly clock: Clock
}

/** One `assay NOUN VERB`. */
export interface Command {
  /** `entry create`, or a single word. */
  readonly name: string
  /** One sentence for lists. */
  readonly summary: string
  /** What follows the name besides options: `FILE`. Absent: nothing may. */
  readonly positionals?: string
  readonly options: readonly Option[]
  /** Paragraphs for `--help`, wrapped at 100 columns. */
  readonly details?: string
  run(context: CommandContext): Promise<void>
}

/** A mistake in how a command was called: exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Options that every command has. */
export const commonOptions: readonly Option[] = [
  { name: 'json', summary: 'print JSON for programs instead of text for people' },
  { name: 'help', summary: 'explain this command' },
]

const folded = (name: string): string => name.replaceAll('-', '').toLowerCase()

/** Rewrites options to their own spelling: `-spiffeID` and `--spiffeid` are `--spiffe-id`. */
function canonicalArguments(args: readonly string[], options: readonly Option[]): string[] {
  const names = new Map(options.map(({ name }) => [folded(name), name]))
  const end = args.indexOf('--')
  return args.map((argument, index) => {
    const match = /^--?([A-Za-z0-9][A-Za-z0-9-]*)(=.*)?$/s.exec(argument)
    if (match === null || (end >= 0 && index > end)) return argument
    const name = names.get(folded(match[1] ?? ''))
    return name === undefined ? argument : `--${name}${match[2] ?? ''}`
  })
}

/** What the arguments after the command's name mean. */
export interface ParsedArguments {
  readonly values: ReadonlyMap<string, readonly string[]>
  readonly switches: ReadonlySet<string>
  readonly positionals: readonly string[]
}

/** @throws UsageError that names the argument and what is allowed. */
export function parseArguments(command: Command, args: readonly string[]): ParsedArguments {
  const options = [...command.options, ...commonOptions]
  const values = new Map<string, string[]>()
  const switches = new Set<string>()
  const positionals: string[] = []
  const { tokens } = parseArgs({
    args: canonicalArguments(args, options),
    options: Object.fromEntries(
      options.map(({ name, value }) => [
        name,
        { type: value === undefined ? ('boolean' as const) : ('string' as const), multiple: true },
      ]),
    ),
    strict: false,
    tokens: true,
    allowPositionals: true,
  })
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value)
    if (token.kind !== 'option') continue
    const option = options.find(({ name }) => name === token.name)
    if (option === undefined) {
      throw new UsageError(
        `unknown option ${token.rawName} of 'assay ${command.name}'; it has ${options.map(({ name }) => `--${name}`).join(', ')}`,
      )
    }
    if (option.value === undefined) {
      if (token.value !== undefined && token.value !== 'true' && token.value !== 'false') {
        throw new UsageError(`option --${option.name} is a switch and takes no value`)
      }
      if (token.value === 'false') switches.delete(option.name)
      else switches.add(option.name)
      continue
    }
    if (token.value === undefined)
      throw new UsageError(`option --${option.name} needs a value: ${option.value}`)
    const given = values.get(option.name) ?? []
    if (given.length > 0 && option.multiple !== true) {
      throw new UsageError(`option --${option.name} was given more than once`)
    }
    values.set(option.name, [...given, token.value])
  }
  if (!switches.has('help')) {
    for (const { name, required } of options) {
      if (required === true && !values.has(name)) {
        throw new UsageError(
          `'assay ${command.name}' needs --${name}; see 'assay ${command.name} --help'`,
        )
      }
    }
    if (positionals.length > 0 && command.positionals === undefined) {
      throw new UsageError(`unexpected argument '${positionals[0]}' after 'assay ${command.name}'`)
    }
  }
  return { values, switches, positionals }
}

/** The value of an option that may be absent. */
export function optional(context: CommandContext, name: string): string | undefined {
  return context.values.get(name)?.[0]
}

/** The value of an option that is required. */
export function required(context: CommandContext, name: string): string {
  const value = optional(context, name)
  if (value === undefined) throw new UsageError(`option --${name} is required`)
  return value
}

/** Every value of an option that may be repeated. */
export function all(context: CommandContext, name: string): readonly string[] {
  return context.values.get(name) ?? []
}

/**
 * The whole number of an option, or `otherwise`.
 *
 * @throws UsageError when it is not between `minimum` and 2^31-1.
 */
export function integer(
  context: CommandContext,
  name: string,
  { otherwise, minimum = 0 }: { readonly otherwise: number; readonly minimum?: number },
): number {
  const text = optional(context, name)
  if (text === undefined) return otherwise
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < minimum || value >= 2 ** 31) {
    throw new UsageError(
      `option --${name} is '${text}': it must be a whole number from ${minimum} to 2147483647`,
    )
  }
  return value
}

const durationUnits: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86400 }

/**
 * Seconds of an option written as `90s`, `15m`, `24h`, `1h30m`, or plain seconds; or `otherwise`.
 *
 * @throws UsageError when it is not a duration.
 */
export function seconds(context: CommandContext, name: string, otherwise: number): number {
  const text = optional(context, name)
  if (text === undefined) return otherwise
  if (/^\d{1,9}$/.test(text)) return Number(text)
  if (!/^(\d{1,9}[smhd])+$/.test(text)) {
    throw new UsageError(
      `option --${name} is '${text}': write a duration such as 90s, 15m, 24h or 1h30m`,
    )
  }
  let total = 0
  for (const [, count, unit] of text.matchAll(/(\d+)([smhd])/g)) {
    total += Number(count) * (durationUnits[unit ?? ''] ?? 0)
  }
  if (total >= 2 ** 31)
    throw new UsageError(`option --${name} is '${text}': at most 2147483647 seconds`)
  return total
}

/**
 * The value of an option that is one of a few words, or the first of them.
 *
 * @throws UsageError that lists them.
 */
export function choice<const T extends string>(
  context: CommandContext,
  name: string,
  choices: readonly [T, ...T[]],
): T {
  const text = optional(context, name)
  if (text === undefined) return choices[0]
  const chosen = choices.find((one) => one === text)
  if (chosen === undefined)
    throw new UsageError(`option --${name} is '${text}': it is one of ${choices.join(', ')}`)
  return chosen
}

/** Unix time now. */
export const nowSeconds = ({ clock }: CommandContext): number =>
  Math.floor(clock.now().epochMilliseconds / 1000)
