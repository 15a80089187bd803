import process from 'node:process'
import { text } from 'node:stream/consumers'
import { SystemClock } from '#base/clock.ts'
import { AssayError, type ErrorCode, messageOf } from '#base/errors.ts'
import { commands } from './catalog.ts'
import { type Command, type CommandContext, parseArguments, UsageError } from './command.ts'
import { commandHelp, overview } from './help.ts'

const statusOf: Partial<Record<ErrorCode, number>> = {
  'invalid-argument': 2,
  'not-found': 3,
  'permission-denied': 4,
  unauthenticated: 4,
  unavailable: 5,
  'failed-precondition': 1,
}

function findCommand(
  args: readonly string[],
): { command: Command; rest: readonly string[] } | undefined {
  for (const length of [2, 1]) {
    const name = args.slice(0, length).join(' ')
    const command = commands.find((candidate) => candidate.name === name)
    if (command !== undefined) return { command, rest: args.slice(length) }
  }
  return undefined
}

/** What to print for a first word that is no command, and with which exit status. */
function withoutCommand(args: readonly string[]): { lines: readonly string[]; status: number } {
  const [noun] = args
  if (noun === undefined || noun === '--help' || noun === '-h' || noun === 'help') {
    return { lines: overview(commands), status: noun === undefined ? 2 : 0 }
  }
  if (commands.some(({ name }) => name.startsWith(`${noun} `))) {
    return { lines: overview(commands, noun), status: args.includes('--help') ? 0 : 2 }
  }
  const nouns = [...new Set(commands.map(({ name }) => name.split(' ')[0]))]
  return { lines: [`assay: no command '${noun}'; there are ${nouns.join(', ')}`], status: 2 }
}

async function main(args: readonly string[]): Promise<number> {
  const found = findCommand(args)
  if (found === undefined) {
    const { lines, status } = withoutCommand(args)
    for (const line of lines) (status === 0 ? console.log : console.error)(line)
    return status
  }
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => stop.abort(new DOMException(name, 'AbortError')))
  }
  let json = found.rest.includes('--json')
  try {
    const parsed = parseArguments(found.command, found.rest)
    json = parsed.switches.has('json')
    if (parsed.switches.has('help')) {
      for (const line of commandHelp(found.command)) console.log(line)
      return 0
    }
    const context: CommandContext = {
      ...parsed,
      json,
      print: (line) => console.log(line),
      note: (line) => console.error(line),
      readInput: () => text(process.stdin),
      environment: process.env,
      signal: stop.signal,
      clock: new SystemClock(),
    }
    await found.command.run(context)
    return process.exitCode === undefined ? 0 : Number(process.exitCode)
  } catch (error) {
    if (stop.signal.aborted) return 130
    const reason = error instanceof AssayError ? error.reason : undefined
    if (json) console.error(JSON.stringify({ error: messageOf(error), ...(reason && { reason }) }))
    else console.error(`assay: ${messageOf(error)}${reason ? ` [${reason}]` : ''}`)
    if (error instanceof UsageError || error instanceof SyntaxError) return 2
    if (error instanceof AssayError) return statusOf[error.code] ?? 1
    return 1
  }
}

// A reader that has seen enough (`assay entry list | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})
process.exitCode = await main(process.argv.slice(2))
