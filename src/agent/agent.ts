import { AssayError } from '#base/errors.ts'
import { runTasks } from '#base/tasks.ts'
import { changedKeys } from '#config/changed-keys.ts'
import type { Daemon } from '#daemon/daemon.ts'
import { pingWatchdog } from '#daemon/watchdog.ts'
import { type AgentConfig, configWarnings, liveKeys } from './config.ts'
import {
  type AgentProcess,
  bootstrapSource,
  openParts,
  type Parts,
  workloadAttestors,
} from './parts.ts'
import { statusText } from './status-text.ts'

/** Why an agent has ended. */
export type AgentEnd = 'stopped' | 'banned'

/** The agent of one node: opened by {@link Agent.open}, then {@link run} until it is told to stop. */
export class Agent implements Daemon<AgentConfig, AgentEnd> {
  readonly #parts: Parts
  readonly #resources: AsyncDisposableStack

  private constructor(parts: Parts, resources: AsyncDisposableStack) {
    this.#parts = parts
    this.#resources = resources
  }

  /**
   * Opens the sockets: from then on workloads get an answer, if only that the agent is not ready yet.
   *
   * @throws AssayError `failed-precondition` when an operator has to act first.
   */
  static async open(config: AgentConfig, process: AgentProcess): Promise<Agent> {
    await using resources = new AsyncDisposableStack()
    for (const warning of configWarnings(config)) process.log.warn({}, warning)
    const parts = await openParts(config, process, resources)
    return new Agent(parts, resources.move())
  }

  /** The port of the metrics, if there are any. */
  get metricsPort(): number | undefined {
    return this.#parts.metricsPort
  }

  /**
   * Takes over what may change while the agent runs, {@link liveKeys}, and returns the other keys that have changed
   * since the start: those need a restart. The log's level is the caller's.
   */
  reload(config: AgentConfig): readonly string[] {
    const { attestation, anchor, identities, process } = this.#parts
    for (const warning of configWarnings(config)) process.log.warn({}, warning)
    anchor.readAgain(bootstrapSource(config))
    attestation.attestors = workloadAttestors(config, { process, identities })
    return changedKeys(this.#parts.config, config).filter((key) => !liveKeys.includes(key))
  }

  /** Serves until `signal` aborts, or the server bans the node. */
  async run(signal: AbortSignal): Promise<AgentEnd> {
    const { identities, membership, status, health, process } = this.#parts
    const { notifier, log } = process
    using _status = status.onChange(() => this.#tellStatus())
    this.#tellStatus()
    notifier.ready()
    let end: AgentEnd = 'stopped'
    const stop = new AbortController()
    const linked = AbortSignal.any([signal, stop.signal])
    try {
      await runTasks(linked, [
        async (s) => {
          await membership.keep(s)
          end = 'banned'
          stop.abort(new AssayError('permission-denied', 'the node is banned'))
        },
        (s) => identities.run(s),
        (s) => pingWatchdog({ ...process, health, onPing: () => this.#tellStatus() }, s),
      ])
    } finally {
      notifier.stopping()
      log.info({}, 'stopping')
    }
    return end
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync()
    await this.#parts.anchor.saved()
  }

  #tellStatus(): void {
    const { status, identities, membership, process } = this.#parts
    const { state, detail, agentId, streams } = status
    const { renewsAtMs } = membership
    const nowMs = process.clock.now().epochMilliseconds
    process.notifier.status(
      statusText({
        state,
        detail,
        agentId,
        streams,
        entries: identities.counts.entries,
        renewsInSeconds: renewsAtMs === undefined ? undefined : (renewsAtMs - nowMs) / 1000,
      }),
    )
  }
}
