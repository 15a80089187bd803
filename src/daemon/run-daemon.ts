import process from 'node:process'
import { parseArgs } from 'node:util'
import { SystemClock } from '#base/clock.ts'
import { messageOf } from '#base/errors.ts'
import { SystemRandom } from '#base/random.ts'
import { version } from '#base/version.ts'
import { ConfigError } from '#config/config-error.ts'
import { loadConfig } from '#config/parse-config.ts'
import type { DaemonConfig, DaemonProgram } from './daemon.ts'
import { needsOperator, serve } from './serve.ts'

const parse = (args: readonly string[]) =>
  parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      config: { type: 'string', short: 'c' },
      help: { type: 'boolean', short: 'h', default: false },
      version: { type: 'boolean', default: false },
    },
  })

/** Does what the command line of a daemon says, `run` or `validate`, and resolves with the exit status. */
export async function runDaemon<Config extends DaemonConfig, End>(
  program: DaemonProgram<Config, End>,
  args: readonly string[],
): Promise<number> {
  const { name, usage, schema } = program
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse(args)
  } catch (error) {
    console.error(`assay-${name}: ${messageOf(error)}\n\n${usage}`)
    return needsOperator
  }
  const { values, positionals } = parsed
  if (values.help) return say(usage)
  if (values.version) return say(version)
  const [command, surplus] = positionals
  if ((command !== 'run' && command !== 'validate') || surplus !== undefined) {
    console.error(usage)
    return needsOperator
  }
  if (values.config === undefined) {
    console.error(`assay-${name}: ${command} needs --config FILE`)
    return needsOperator
  }
  let config: Config
  try {
    config = await loadConfig(schema, values.config)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    console.error(error.message)
    return needsOperator
  }
  if (command === 'validate') return await validate(program, config)
  process.umask(process.umask() | program.umask)
  return await serve(program, { config, file: values.config })
}

function say(text: string): number {
  console.log(text)
  return 0
}

async function validate<Config extends DaemonConfig, End>(
  program: DaemonProgram<Config, End>,
  config: Config,
): Promise<number> {
  for (const warning of program.warnings(config)) console.error(`warning: ${warning}`)
  const problems = await program.problems(config, {
    clock: new SystemClock(),
    random: new SystemRandom(),
    monotonicMs: () => performance.now(),
  })
  for (const problem of problems) console.error(problem)
  return problems.length > 0 ? needsOperator : say('the configuration is valid')
}
