import type { Schema } from '#config/schema.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { type CommandContext, isOn, type Option, optional, UsageError } from '../command.ts'
import { Answers } from './answers.ts'
import { textOf } from './apply.ts'
import { openTerminal, type Terminal } from './terminal.ts'

/** Options of the setup of server and agent. */
export const sharedOptions: readonly Option[] = [
  { name: 'answers', value: 'FILE', summary: 'YAML with the answers, by the same names with _' },
  { name: 'dry-run', summary: 'show what would be written, and write nothing' },
  { name: 'no-start', summary: 'do not start the service' },
]

/** What a setup begins with. */
export interface Beginning {
  readonly terminal: Terminal
  readonly answers: Answers
  /** Of the configuration. */
  readonly path: string
  readonly dryRun: boolean
  /** The configuration as it is; empty when there is none. */
  readonly before: string
  /** What it says of keys at its top, as far as it can be read. */
  readonly already: Readonly<Record<string, string>>
  readonly trustDomain: string
}

/** @throws UsageError when the configuration is for another trust domain. */
export async function beginSetup(
  context: CommandContext,
  by: {
    readonly answersSchema: Schema<Readonly<Record<string, string | undefined>>>
    /** The configuration when no option names it. */
    readonly otherwisePath: string
    readonly question: string
  },
): Promise<Beginning> {
  const terminal = openTerminal(context.signal)
  const answers = await Answers.load(context, by.answersSchema, terminal)
  const path = optional(context, 'config') ?? by.otherwisePath
  const dryRun = isOn(context, 'dry-run')
  const before = await textOf(path)
  const already = present(before)
  const trustDomain = await answers.get('trust_domain', {
    question: by.question,
    otherwise: already['trust_domain'],
    check: parseTrustDomain,
  })
  requireSame('trust_domain', already['trust_domain'], trustDomain, path)
  return { terminal, answers, path, dryRun, before, already, trustDomain }
}

function present(text: string): Readonly<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const [, name = '', value = ''] of text.matchAll(/^([a-z_]+):[ \t]+["']?([^\s"'{[#]+)/gm)) {
    found[name] = value
  }
  return found
}

function requireSame(name: string, before: string | undefined, now: string, path: string): void {
  if (before === undefined || before === now) return
  throw new UsageError(
    `${path} is for the ${name.replaceAll('_', ' ')} ${before}, and not ${now}: it cannot be changed; for another one use another --config`,
  )
}
