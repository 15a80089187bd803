import process from 'node:process'
import { SystemClock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { SystemRandom } from '#base/random.ts'
import { version } from '#base/version.ts'
import { loadConfig } from '#config/parse-config.ts'
import { forbidCoreDumps } from '#host/core-dumps.ts'
import { isJournal } from '#host/journal.ts'
import { createNotifier } from '#host/notify.ts'
import { openLog } from '#telemetry/log.ts'
import type { Daemon, DaemonConfig, DaemonProcess, DaemonProgram } from './daemon.ts'

/** Exit status: what is wrong is the configuration, the call, or something else that no retry cures. */
export const needsOperator = 2

const standardError = 2

/** Runs a daemon until SIGTERM or SIGINT, reads its file again at SIGHUP, and resolves with the exit status. */
export async function serve<Config extends DaemonConfig, End>(
  program: DaemonProgram<Config, End>,
  { config, file }: { readonly config: Config; readonly file: string },
): Promise<number> {
  const clock = new SystemClock()
  const log = openLog({
    level: config.log_level,
    format: config.log_format,
    clock,
    priorities: isJournal(process.env, standardError),
  })
  const notifier = createNotifier({
    environment: process.env,
    pid: process.pid,
    onError: (error) => log.warn({ error }, 'cannot tell systemd'),
  })
  const stop = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.once(name, () => stop.abort(new AssayError('unavailable', name)))
  }
  let running: Daemon<Config, End> | undefined
  process.on('SIGHUP', () => void reload(program, { file, log, notifier, running }))
  try {
    forbidCoreDumps()
    log.info({ version, pid: process.pid, trustDomain: config.trust_domain }, 'starting')
    await using daemon = await program.open(config, {
      clock,
      random: new SystemRandom(),
      log,
      notifier,
      monotonicMs: () => performance.now(),
    })
    running = daemon
    const status = stop.signal.aborted ? 0 : program.exitStatus(await daemon.run(stop.signal))
    if (status !== 0) return status
  } catch (error) {
    log.error({ error }, `the ${program.name} ends`)
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

/** Takes over what may change while it runs, and names what needs a restart. `running` is undefined while it starts. */
async function reload<Config extends DaemonConfig, End>(
  { name, schema }: DaemonProgram<Config, End>,
  {
    file,
    log,
    notifier,
    running,
  }: Pick<DaemonProcess, 'log' | 'notifier'> & {
    readonly file: string
    readonly running: Daemon<Config, End> | undefined
  },
): Promise<void> {
  notifier.reloading()
  try {
    const config = await loadConfig(schema, file)
    log.level = config.log_level
    const restart = await running?.reload(config)
    if (restart === undefined)
      log.warn({}, `only log_level is read while the ${name} starts; reload again`)
    else if (restart.length > 0) log.warn({}, `needs a restart: ${restart.join(', ')}`)
    log.info({ logLevel: config.log_level }, 'the configuration was read again')
  } catch (error) {
    log.error({ error }, 'cannot reload the configuration; nothing has changed')
  }
  notifier.ready()
}
