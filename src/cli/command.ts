import { readFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import type { Clock } from '#base/clock.ts'
import type { Random } from '#base/random.ts'
import { nearest } from '#config/nearest.ts'
import type { Lines } from './terminal.ts'

/** One option of a command, as help, completion and the parser know it. */
export interface Option {
  /** Kebab-case, without dashes. SPIRE's spelling of the same words (`-spiffeID`) is understood too. */
  readonly name: string
  /** What the value is, for help: `ID`, `SECONDS`. Absent: a switch. */
  readonly value?: string
  /** The few values there are; {@link parseArguments} refuses others. */
  readonly choices?: readonly string[]
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
  /** Those that were given: `--admin` is true, `--admin=false` false. */
  readonly switches: ReadonlyMap<string, boolean>
  /** What follows the verb and is not an option. */
  readonly positionals: readonly string[]
  readonly json: boolean
  /** Writes to standard output. */
  print(lines: Lines): void
  /** Writes to standard error: notes that must not disturb what a script reads. */
  note(lines: Lines): void
  /** Shows what long work has come to on one line of the terminal, if there is one; empty: nothing. */
  progress(line: string): void
  /** Reads standard input to its end. */
  readInput(): Promise<string>
  /** The exit status of a command that did its work and found something amiss; see `exitStatuses`. */
  setStatus(status: number): void
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Aborts at SIGINT and SIGTERM, and with {@link cancel}. */
  readonly signal: AbortSignal
  /** Ends the command, which then fails with `reason`. */
  cancel(reason: Error): void
  readonly clock: Clock
  readonly random: Random
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
    const [, given = '', value = ''] = match
    return `--${names.get(folded(given)) ?? given}${value}`
  })
}

/** What the arguments after the command's name mean. */
export type ParsedArguments = Pick<CommandContext, 'values' | 'switches' | 'positionals'>

/** @throws UsageError that names the argument and what is allowed. */
export function parseArguments(command: Command, args: readonly string[]): ParsedArguments {
  const options = [...command.options, ...commonOptions]
  const values = new Map<string, string[]>()
  const switches = new Map<string, boolean>()
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
    if (option === undefined) throw unknownOption(command, token.rawName)
    if (option.value === undefined) switches.set(option.name, switchValue(option, token.value))
    else values.set(option.name, [...(values.get(option.name) ?? []), optionValue(option, token)])
  }
  for (const { name, multiple } of options) {
    if (multiple !== true && (values.get(name)?.length ?? 0) > 1)
      throw new UsageError(`option --${name} was given more than once`)
  }
  if (switches.get('help') !== true) requireArguments(command, { values, positionals })
  return { values, switches, positionals }
}

function switchValue(option: Option, value: string | undefined): boolean {
  if (value === undefined || value === 'true') return true
  if (value === 'false') return false
  throw new UsageError(`option --${option.name} is a switch: it takes no value but true and false`)
}

function optionValue(
  { name, value: meaning, choices }: Option,
  token: { readonly value?: string | undefined; readonly inlineValue?: boolean | undefined },
): string {
  const { value, inlineValue } = token
  // What follows is the next option, not a value, unless it was tied to this one.
  if (value !== undefined && (inlineValue || value === '-' || !value.startsWith('-'))) {
    if (choices === undefined || choices.includes(value)) return value
    throw new UsageError(`option --${name} is '${value}': it is one of ${choices.join(', ')}`)
  }
  const tied = value === undefined ? '' : `; a value that begins with a dash is tied: --${name}=…`
  throw new UsageError(`option --${name} needs a value: ${meaning}${tied}`)
}

function unknownOption(command: Command, given: string): UsageError {
  const names = [...command.options, ...commonOptions].map(({ name }) => name)
  const meant = nearest(given.replace(/^-+/, ''), names)
  const remedy =
    meant === undefined
      ? `it has ${names.map((name) => `--${name}`).join(', ')}`
      : `did you mean --${meant}?`
  return new UsageError(`unknown option ${given} of 'assay ${command.name}'; ${remedy}`)
}

function requireArguments(
  command: Command,
  { values, positionals }: Pick<ParsedArguments, 'values' | 'positionals'>,
): void {
  for (const option of command.options) {
    if (option.required === true && !values.has(option.name)) {
      throw new UsageError(
        `'assay ${command.name}' needs --${option.name} ${option.value}; see 'assay ${command.name} --help'`,
      )
    }
  }
  const most = command.positionals === undefined ? 0 : command.positionals.endsWith('…') ? 99 : 1
  if (positionals.length > most)
    throw new UsageError(`unexpected argument '${positionals[most]}' after 'assay ${command.name}'`)
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

/** Whether a switch was given and is not `=false`. */
export const isOn = (context: CommandContext, name: string): boolean =>
  context.switches.get(name) === true

/** Writes a text of several lines, as a document or PEM blocks; no stranger has a word in it. */
export function printText({ print }: Pick<CommandContext, 'print'>, text: string): void {
  print(text.split('\n'))
}

/**
 * The text of a file that the caller named, or of standard input when that name is `-`.
 *
 * @throws UsageError when it cannot be read.
 */
export async function readNamed(context: CommandContext, path: string): Promise<string> {
  if (path === '-') return context.readInput()
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    const why = code === 'ENOENT' ? 'there is no such file' : message
    throw new UsageError(`cannot read ${path}: ${why}`, { cause })
  }
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

/** The value of an option whose `choices` these are, or the first of them. */
export function choice<const T extends string>(
  context: CommandContext,
  name: string,
  choices: readonly [T, ...T[]],
): T {
  const text = optional(context, name)
  // parseArguments() has refused every other.
  return choices.find((one) => one === text) ?? choices[0]
}

/**
 * Unix time of an option written as RFC 3339 or, as SPIRE has it, as Unix time; zero when absent.
 *
 * @throws UsageError when it is neither.
 */
export function epochSeconds(context: CommandContext, name: string): number {
  const text = optional(context, name)
  if (text === undefined) return 0
  if (/^\d{1,11}$/.test(text)) return Number(text)
  try {
    return Math.floor(Temporal.Instant.from(text).epochMilliseconds / 1000)
  } catch (cause) {
    throw new UsageError(
      `option --${name} is '${text}': write a time such as 2026-01-31T12:00:00Z`,
      { cause },
    )
  }
}

/** Unix time now. */
export const nowSeconds = ({ clock }: CommandContext): number =>
  Math.floor(clock.now().epochMilliseconds / 1000)
