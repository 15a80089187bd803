// assay-server: the authority of a trust domain.
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
import { openLog, type ProcessLog } from '#telemetry/log.ts'
import { configWarnings, type ServerConfig, serverConfigSchema } from './config.ts'
import { openSqliteDatastore } from './datastore/sql/sqlite.ts'
import { namedFileProblems } from './named-files.ts'
import { Server } from './server.ts'

const usage = `assay-server ${version}: the authority of a trust domain

  assay-server run --config FILE        serve until SIGTERM or SIGINT; SIGHUP reads FILE again
  assay-server validate --config FILE   name everything that is wrong in the file and those it names

  --help      this text
  --version   the version

Exit status: 0, all is well; 1, it failed and may be tried again; 2, somebody has to put something right first.`

/** What is wrong is the configuration, the call, or something else that no retry cures. */
const needsOperator = 2

async function main(args: readonly string[]): Promise<number> {
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse(args)
  } catch (error) {
    console.error(`assay-server: ${messageOf(error)}\n\n${usage}`)
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
    console.error(`assay-server: ${command} needs --config FILE`)
    return needsOperator
  }
  let config: ServerConfig
  try {
    config = await loadConfig(serverConfigSchema, values.config)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    console.error(error.message)
    return needsOperator
  }
  return command === 'validate' ? await validate(config) : await run(config, values.config)
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

async function validate(config: ServerConfig): Promise<number> {
  for (const warning of configWarnings(config)) console.error(`warning: ${warning}`)
  const problems = await namedFileProblems(config, {
    clock: new SystemClock(),
    random: new SystemRandom(),
    monotonicMs: () => performance.now(),
  })
  for (const problem of problems) console.error(problem)
  return problems.length > 0 ? needsOperator : say('the configuration is valid')
}

async function run(config: ServerConfig, file: string): Promise<number> {
  // What the server makes is for its user and group, whatever it was started with.
  process.umask(process.umask() | 0o027)
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
  const running: Running = { server: undefined }
  process.on('SIGHUP', () => void reload(file, { log, notifier, running }))
  try {
    forbidCoreDumps()
    log.info({ version, pid: process.pid, trustDomain: config.trust_domain }, 'starting')
    await using server = await Server.open(config, {
      clock,
      random: new SystemRandom(),
      log,
      notifier,
      ownUid: process.geteuid?.() ?? 0,
      monotonicMs: () => performance.now(),
      openDatastore: ({ path }) => openSqliteDatastore({ path, log }),
    })
    running.server = server
    if (!stop.signal.aborted) await server.run(stop.signal)
  } catch (error) {
    log.error({ error }, 'the server ends')
    return isForOperator(error) ? needsOperator : 1
  }
  log.info({}, 'stopped')
  return 0
}

/** Trying again cannot mend it. */
function isForOperator(error: unknown): boolean {
  if (!(error instanceof AssayError)) return false
  return error.code === 'failed-precondition' || error.reason === 'datastore-corrupt'
}

/** Undefined as long as it is being opened. */
interface Running {
  server: Server | undefined
}

/** Takes over what may change while the server runs, and names what needs a restart. */
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
    const config = await loadConfig(serverConfigSchema, file)
    log.level = config.log_level
    const restart = await running.server?.reload(config)
    if (restart === undefined)
      log.warn({}, 'only log_level is read while the server starts; reload again')
    else if (restart.length > 0) log.warn({}, `needs a restart: ${restart.join(', ')}`)
    log.info({ logLevel: config.log_level }, 'the configuration was read again')
  } catch (error) {
    log.error({ error }, 'cannot reload the configuration; nothing has changed')
  }
  notifier.ready()
}

process.exitCode = await main(process.argv.slice(2))
