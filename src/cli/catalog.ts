import type { Command } from './command.ts'
import { completions } from './completions.ts'

const complete: Command = {
  name: 'complete',
  summary: 'what may follow some words, for the completion scripts',
  positionals: 'WORD…',
  options: [],
  async run(context) {
    const [noun] = context.positionals
    const known = noun === undefined ? [] : await commandsOf(noun)
    for (const candidate of completions({ nouns, commands: known }, context.positionals))
      context.print(candidate)
  },
}

/** Where the commands of each noun are. A file is read when one of its commands is called: a call waits for no other. */
const groups: Readonly<Record<string, () => Promise<{ readonly commands: readonly Command[] }>>> = {
  entry: () => import('./commands/entry.ts'),
  agent: () => import('./commands/agent.ts'),
  token: () => import('./commands/token.ts'),
  bundle: () => import('./commands/bundle.ts'),
  tpm: () => import('./commands/tpm.ts'),
  inventory: () => import('./commands/inventory.ts'),
  hsm: () => import('./commands/hsm.ts'),
  authority: () => import('./commands/authority.ts'),
  approval: () => import('./commands/approval.ts'),
  ceremony: () => import('./commands/ceremony.ts'),
  x509: () => import('./commands/x509.ts'),
  jwt: () => import('./commands/jwt.ts'),
  fetch: () => import('./commands/fetch.ts'),
  validate: () => import('./commands/validate.ts'),
  console: () => import('./commands/console.ts'),
  watch: () => import('./commands/watch.ts'),
  setup: () => import('./commands/setup.ts'),
  status: () => import('./commands/status.ts'),
  doctor: () => import('./commands/doctor.ts'),
  backup: () => import('./commands/backup.ts'),
  restore: () => import('./commands/restore.ts'),
  helper: () => import('./commands/helper.ts'),
  why: () => import('./commands/why.ts'),
  refusal: () => import('./commands/refusal.ts'),
  healthcheck: () => import('./commands/healthcheck.ts'),
  completion: () => import('./commands/completion.ts'),
  complete: async () => ({ commands: [complete] }),
  version: () => import('./commands/version.ts'),
}

/** The first words of all commands, in the order in which help lists them. */
export const nouns: readonly string[] = Object.keys(groups)

/** The commands that begin with `noun`; none when there is no such noun. */
export async function commandsOf(noun: string): Promise<readonly Command[]> {
  const load = Object.hasOwn(groups, noun) ? groups[noun] : undefined
  return load === undefined ? [] : (await load()).commands
}

/** Every command there is. */
export async function allCommands(): Promise<readonly Command[]> {
  return (await Promise.all(nouns.map(commandsOf))).flat()
}
