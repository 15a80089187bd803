import { constants } from 'node:os'
import process from 'node:process'
import { text } from 'node:stream/consumers'
import { SystemClock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { SystemRandom } from '#base/random.ts'
import { version } from '#base/version.ts'
import { nearest } from '#config/nearest.ts'
import { allCommands, commandsOf, nouns } from './catalog.ts'
import { type Command, type CommandContext, parseArguments } from './command.ts'
import { exitStatusOf } from './exit-status.ts'
import { commandHelp, overview } from './help.ts'
import { type Lines, Terminal } from './terminal.ts'

const terminal = new Terminal(process.stdout, process.stderr)
const print = (lines: Lines): void => terminal.print(lines)
const note = (lines: Lines): void => terminal.note(lines)

/** Why a command ended before it was done. */
class Interrupted extends Error {
  readonly status: number

  constructor(status: number) {
    super('interrupted')
    this.status = status
  }
}

const isHelp = (word: string | undefined): boolean => word === '--help' || word === '-h'

/** Explains, or says what is wrong with words that are no command. @returns the exit status. */
async function withoutCommand(words: readonly string[]): Promise<number> {
  const [noun, verb] = words
  if (noun === undefined || isHelp(noun)) {
    for (const line of overview(await allCommands())) (isHelp(noun) ? print : note)(line)
    return isHelp(noun) ? 0 : 2
  }
  const known = await commandsOf(noun)
  if (known.length === 0) {
    const meant = nearest(noun, nouns)
    const remedy = meant === undefined ? "'assay --help' lists them" : `did you mean '${meant}'?`
    note(`assay: no command '${noun}'; ${remedy}`)
    return 2
  }
  if (isHelp(verb)) {
    for (const line of overview(known, noun)) print(line)
    return 0
  }
  if (verb !== undefined) {
    const meant = nearest(
      `${noun} ${verb}`,
      known.map(({ name }) => name),
    )
    note(
      `assay: no command '${noun} ${verb}'${meant === undefined ? '' : `; did you mean '${meant}'?`}`,
    )
  }
  for (const line of overview(known, noun)) note(line)
  return 2
}

async function runCommand(command: Command, args: readonly string[]): Promise<number> {
  const stop = new AbortController()
  const end = (status: number): void => stop.abort(new Interrupted(status))
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => end(128 + constants.signals[name]))
  // A reader that has seen enough (`assay watch | head`) ends the command, and is no failure.
  process.stdout.on('error', () => end(0))
  // Also what is wrong with the arguments is told as JSON to who asked for it.
  let json = args.some((one) => /^--?json$/.test(one))
  let status = 0
  try {
    const parsed = parseArguments(command, args)
    json = parsed.switches.get('json') === true
    if (parsed.switches.get('help') === true) {
      for (const line of commandHelp(command)) print(line)
      return 0
    }
    const context: CommandContext = {
      ...parsed,
      json,
      print,
      note,
      progress: (line) => terminal.progress(line),
      readInput: () => text(process.stdin),
      setStatus: (of) => {
        status = of
      },
      environment: process.env,
      signal: stop.signal,
      cancel: (reason) => stop.abort(reason),
      clock: new SystemClock(),
      random: new SystemRandom(),
    }
    await command.run(context)
    return status
  } catch (thrown) {
    const error = stop.signal.aborted ? stop.signal.reason : thrown
    if (error instanceof Interrupted) return error.status
    note(errorLines(error, json))
    return exitStatusOf(error)
  } finally {
    terminal.progress('')
    // Whatever still waits for the end of the command would hold the process.
    stop.abort()
  }
}

function errorLines(error: unknown, json: boolean): readonly string[] {
  const { code, reason } = error instanceof AssayError ? error : {}
  const message = messageOf(error)
  if (json) return [JSON.stringify({ error: message, code, reason })]
  const [first = '', ...rest] = message.split('\n')
  return [`assay: ${first}${reason ? ` [${reason}]` : ''}`, ...rest]
}

async function main(args: readonly string[]): Promise<number> {
  if (args.length === 1 && args[0] === '--version') {
    print(version)
    return 0
  }
  const words = args[0] === 'help' ? [...args.slice(1), '--help'] : args
  const [noun = ''] = words
  const known = await commandsOf(noun)
  for (const length of [2, 1]) {
    const name = words.slice(0, length).join(' ')
    const command = known.find((candidate) => candidate.name === name)
    if (command !== undefined) return runCommand(command, words.slice(length))
  }
  return withoutCommand(words)
}

process.exitCode = await main(process.argv.slice(2))
