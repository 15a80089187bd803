// assay-agent: gives the workloads of one node their identities.
import process from 'node:process'
import { parseArgs } from 'node:util'
import { SystemClock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { SystemRandom } from '#base/random.ts'
import { version } from '#base/version.ts'
import { ConfigError } from '#config/config-error.ts'
import { loadConfig } from '#config/parse-config.ts'
import { forbidCoreDumps } from '#host/core-dumps.ts'
import { createNotifier, type Notifier } from '#host/notify.ts'
import { activatedSockets } from '#host/socket-activation.ts'
import { openLog, type ProcessLog } from '#telemetry/log.ts'
import { Agent } from './agent.ts'
import { type AgentConfig, agentConfigSchema, configWarnings } from './config.ts'

const usage = `assay-agent ${version}: gives the workloads of this node their identities

  assay-agent run --config FILE        serve until SIGTERM or SIGINT; SIGHUP reads FILE again
  assay-agent validate --config FILE   name everything that is wrong in the file

  --help      this text
  --version   the version

Exit status: 0, all is well; 1, it failed and may be tried again; 2, somebody has to put something right first;
3, the server has banned this node.`

/** What is wrong is the configuration, the call, or something else that no retry cures. */
const needsOperator = 2
const banned = 3

async function main(args: readonly string[]): Promise<number> {
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse(args)
  } catch (error) {
    console.error(`assay-agent: ${messageOf(error)}\n\n${usage}`)
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
    console.error(`assay-agent: ${command} needs --config FILE`)
    return needsOperator
  }
  let config: AgentConfig
  try {
    config = await loadConfig(agentConfigSchema, values.config)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    console.error(error.message)
    return needsOperator
  }
  return command === 'validate' ? validate(config) : await run(config, values.config)
}

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

function say(text: string): number {
  console.log(text)
  return 0
}

function validate(config: AgentConfig): number {
  for (const warning of configWarnings(config)) console.error(`warning: ${warning}`)
  return say('the configuration is valid')
}

async function run(config: AgentConfig, file: string): Promise<number> {
  // What the agent keeps is for its own user; sockets get the modes they need by name.
  process.umask(process.umask() | 0o022)
  const clock = new SystemClock()
  const log = openLog({ level: config.log_level, format: config.log_format, clock })
  const notifier = createNotifier({
    environment: process.env,
    pid: process.pid,
    onError: (error) => log.warn({ error }, 'cannot tell systemd'),
  })
  const stop = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.once(name, () => stop.abort(new AssayError('unavailable', name)))
  }
  const running: Running = { agent: undefined }
  process.on('SIGHUP', () => void reload(file, { log, notifier, running }))
  try {
    forbidCoreDumps()
    log.info({ version, pid: process.pid, trustDomain: config.trust_domain }, 'starting')
    await using agent = await Agent.open(config, {
      clock,
      random: new SystemRandom(),
      log,
      notifier,
      monotonicMs: () => performance.now(),
      activated: activatedSockets(process.env, process.pid),
    })
    running.agent = agent
    const end = stop.signal.aborted ? 'stopped' : await agent.run(stop.signal)
    if (end === 'banned') return banned
  } catch (error) {
    log.error({ error }, 'the agent ends')
    return error instanceof AssayError && error.code === 'failed-precondition' ? needsOperator : 1
  }
  log.info({}, 'stopped')
  return 0
}

/** Undefined as long as it is being opened. */
interface Running {
  agent: Agent | undefined
}

/** Takes over what may change while the agent runs, and names what needs a restart. */
async function reload(
  file: string,
  {
    log,
    notifier,
    running,
  }: { readonly log: ProcessLog; readonly notifier: Notifier; readonly running: Running },
): Promise<void> {
  notifier.reloading()
  try {
    const config = await loadConfig(agentConfigSchema, file)
    log.level = config.log_level
    const restart = running.agent?.reload(config)
    if (restart === undefined)
      log.warn({}, 'only log_level is read while the agent starts; reload again')
    else if (restart.length > 0) log.warn({}, `needs a restart: ${restart.join(', ')}`)
    log.info({ logLevel: config.log_level }, 'the configuration was read again')
  } catch (error) {
    log.error({ error }, 'cannot reload the configuration; nothing has changed')
  }
  notifier.ready()
}

process.exitCode = await main(process.argv.slice(2))
