import process from 'node:process'
import { AssayError } from '#base/errors.ts'
import { ConfigError } from '#config/config-error.ts'
import { loadConfig } from '#config/parse-config.ts'
import { createNotifier } from '#host/notify.ts'
import {
  type Command,
  type CommandContext,
  isOn,
  required,
  seconds,
  UsageError,
} from '../command.ts'
import { workloadApiAt } from '../daemons.ts'
import { type HelperConfig, helperConfigSchema } from '../helper/config.ts'
import { Helper, type HelperEvent } from '../helper/helper.ts'
import { timeText, timeValue } from '../print.ts'

const prefixes = {
  reloaded: '',
  note: '',
  'not-reloaded': 'not reloaded: ',
  waiting: 'waiting for the agent: ',
} as const

/** One line for each thing that happens: a service's log. */
function report(context: CommandContext, event: HelperEvent): void {
  if (event.event !== 'written') {
    const { event: name, detail } = event
    const [first = ''] = detail.split('\n')
    if (context.json) say(context, name, { detail })
    else context.note(prefixes[name] + first)
    return
  }
  const { event: name, files, spiffeId, expiresAtSeconds } = event
  if (context.json) {
    say(context, name, { files, spiffe_id: spiffeId, expires_at: timeValue(expiresAtSeconds) })
    return
  }
  const whose = spiffeId === undefined ? '' : ` of ${spiffeId} until ${timeText(expiresAtSeconds)}`
  context.note(`wrote ${files.join(', ')}${whose}`)
}

function say(context: CommandContext, event: string, record: object): void {
  const at = context.clock.now().toString({ smallestUnit: 'second' })
  context.print(JSON.stringify({ at, event, ...record }))
}

async function load(file: string): Promise<HelperConfig> {
  try {
    return await loadConfig(helperConfigSchema, file)
  } catch (error) {
    if (error instanceof ConfigError) throw new UsageError(error.message, { cause: error })
    throw error
  }
}

const helper: Command = {
  name: 'helper',
  summary: 'keep keys, certificates, bundles and tokens in files for a program, and reload it',
  options: [
    { name: 'config', value: 'FILE', required: true, summary: 'helper.yaml; see helper.md' },
    { name: 'once', summary: 'write once and end, for jobs that run before a program' },
    {
      name: 'timeout',
      value: 'DURATION',
      summary: 'with --once: how long to wait for an identity; 30s when absent',
    },
    { name: 'validate', summary: 'name everything that is wrong in the file, and end' },
  ],
  details: `
Follows the Workload API until SIGTERM, through restarts of the agent, and exchanges all files of a directory in one
step. With --json each event is a line. Tells systemd when the files are there, and what it is doing.`,
  async run(context) {
    const config = await load(required(context, 'config'))
    if (isOn(context, 'validate')) {
      return context.print(
        context.json ? JSON.stringify({ valid: true }) : 'the configuration is valid',
      )
    }
    const once = isOn(context, 'once') || !config.daemon_mode
    const limitSeconds = seconds(context, 'timeout', 30)
    const stop = new AbortController()
    const signal = AbortSignal.any([context.signal, stop.signal])
    const { clock, random, environment } = context
    const notifier = createNotifier({
      environment,
      pid: process.pid,
      onError: (error) => context.note(`cannot tell systemd: ${error}`),
    })
    using api = workloadApiAt(context, {
      address: config.agent_address,
      kind: config.post_quantum ? 'post-quantum' : 'classical',
    })
    const running = await Helper.open(config, api, {
      clock,
      random,
      environment,
      notifier,
      once,
      report: (event) => report(context, event),
    })
    // Holds the process too: a connection alone does not.
    const waiting = once
      ? Temporal.Duration.from({ seconds: limitSeconds })
      : Temporal.Duration.from({ hours: 24 * 365 * 100 })
    const limit = clock.sleep(waiting, signal).then(
      () => stop.abort(),
      () => {
        // It has ended before.
      },
    )
    try {
      if (await running.run(signal)) return
    } finally {
      stop.abort()
      await limit
      notifier.stopping()
    }
    // SIGTERM is how a service ends.
    if (!once) return
    context.signal.throwIfAborted()
    throw (
      running.trouble ??
      new AssayError('unavailable', `the agent gave no identity within ${limitSeconds} s`)
    )
  },
}

export const commands: readonly Command[] = [helper]
