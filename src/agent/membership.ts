import { Backoff } from '#base/backoff.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import { type Random, randomFraction } from '#base/random.ts'
import { runTasks } from '#base/tasks.ts'
import { trustDomainOf } from '#spiffe/spiffe-id.ts'
import type { Metrics } from '#telemetry/metrics.ts'
import type { TrustAnchor } from './bootstrap/trust-anchor.ts'
import type { AgentConfig } from './config.ts'
import { AgentSvid } from './manager/agent-svid.ts'
import type { Identities } from './manager/identities.ts'
import type { Reporter } from './manager/reporter.ts'
import { explainServerError } from './manager/server-errors.ts'
import { followServer, type SyncEnd, syncEndOf } from './manager/sync.ts'
import type { NodeAttestor } from './plugin/node-attestor/node-attestor.ts'
import type { AgentIdentity } from './server-client/agent-identity.ts'
import type { ServerClient } from './server-client/server-client.ts'
import type { AgentStatus } from './status.ts'
import type { AgentStorage } from './storage/agent-storage.ts'

export interface MembershipOptions {
  readonly config: AgentConfig
  readonly storage: AgentStorage
  readonly anchor: TrustAnchor
  readonly nodeAttestor: NodeAttestor
  readonly client: ServerClient
  readonly identities: Identities
  readonly reporter: Reporter
  readonly status: AgentStatus
  readonly metrics: Metrics
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** A node that proves itself again and again in vain asks less and less often. */
const firstRetry = Temporal.Duration.from({ milliseconds: 500 })
const longestRetry = Temporal.Duration.from({ seconds: 30 })
/** A server that was only started again must not have every agent attest at once. */
const longestRefusalMs = 30_000
/** When to ask again after an SVID that is tainted from the start. */
const taintedRetry = Temporal.Duration.from({ seconds: 10 })

/** Makes the node a member of its trust domain, and keeps it one: attested, with a fresh SVID, told of every change. */
export class Membership {
  readonly #options: MembershipOptions
  readonly #svid: AgentSvid

  constructor(options: MembershipOptions) {
    this.#options = options
    const { client, nodeAttestor, clock, random, log } = options
    this.#svid = new AgentSvid({
      renew: async (current, signal) =>
        current.canReattest
          ? (await client.attest(nodeAttestor, signal)).identity
          : client.renew(current, signal),
      onRenewed: (identity) => this.#become(identity),
      clock,
      random,
      log,
    })
  }

  /** When the agent's SVID is renewed, Unix time; undefined: there is none yet. */
  get renewsAtMs(): number | undefined {
    return this.#svid.dueAtMs
  }

  /**
   * The own bundle has changed: an SVID that a tainted authority signed is replaced when this agent's moment for it has
   * come, one of a revoked authority now.
   */
  authoritiesChanged(): void {
    const { identities, client } = this.#options
    const own = client.ownSvid()
    if (own === undefined) return
    const trust = identities.bundles.trustOf(own.authorityId)
    if (trust === 'tainted') this.#svid.renewBy(identities.replaceAtMs(own.authorityId))
    else if (trust === 'unknown') this.#svid.renewBy(0)
  }

  /** Proves the node, follows the server, and does so again whenever the server asks for it. Ends when banned. */
  async keep(signal: AbortSignal): Promise<void> {
    const { client, identities, status, storage, clock, monotonicMs, log } = this.#options
    const backoff = this.#newBackoff()
    let identity = await this.#storedIdentity()
    if (identity !== undefined) await this.#untilTrustIsKnown(signal)
    for (;;) {
      identity ??= await this.#attest(signal)
      if (identity === undefined) break
      await this.#become(identity)
      const startMs = monotonicMs()
      const end = await this.#follow(identity, signal)
      if (end === 'banned') break
      log.warn({ spiffeId: identity.spiffeId }, 'the server wants this node to prove itself again')
      identity = undefined
      client.setIdentity(undefined)
      await storage.deleteIdentity()
      if (monotonicMs() - startMs > 60_000) backoff.reset()
      await clock.sleep(backoff.next(), signal)
    }
    status.enter('stopped', 'the server has banned this node')
    identities.clear()
    client.setIdentity(undefined)
    await storage.deleteIdentity()
    log.error(
      {},
      'the server has banned this node: no identity is served any more; an administrator of the server can lift the ban',
    )
  }

  /** Until the server says that there is no use in going on. */
  async #follow(identity: AgentIdentity, signal: AbortSignal): Promise<SyncEnd> {
    const { client, identities, reporter, status, metrics, clock, random, log } = this.#options
    const stop = new AbortController()
    let end: SyncEnd = 'must-reattest'
    const ended = (why: SyncEnd): void => {
      // The first to say so is the one who knows.
      if (!stop.signal.aborted) end = why
      stop.abort(new AssayError('unavailable', why))
    }
    const watch = (s: AbortSignal) => client.watch(s)
    const report = (s: AbortSignal) => reporter.run(s)
    const onLost = () => this.#renewIfRefused()
    await runTasks(AbortSignal.any([signal, stop.signal]), [
      async (s) => {
        const options = { watch, report, onLost, identities, status, metrics, clock, random, log }
        ended(await this.#followEachIdentity(() => followServer(options, s)))
      },
      async (s) => ended(await this.#svid.keep(identity, s)),
    ])
    signal.throwIfAborted()
    return end
  }

  /**
   * Follows until the server wants the node to prove itself although no renewal is on its way: it ends the stream of an
   * SVID at the moment in which it has made the next one, which may come here later.
   */
  async #followEachIdentity(follow: () => Promise<SyncEnd>): Promise<SyncEnd> {
    for (;;) {
      const { generation } = this.#svid
      const end = await follow()
      await this.#svid.settled()
      if (end === 'banned' || this.#svid.generation === generation) return end
    }
  }

  /** Tries until it succeeds. Undefined: the server has banned the node. */
  async #attest(signal: AbortSignal): Promise<AgentIdentity | undefined> {
    const { anchor, client, nodeAttestor, status, clock, log } = this.#options
    const backoff = this.#newBackoff()
    status.enter('attesting', status.detail)
    for (;;) {
      try {
        await anchor.prepare(signal)
        const { identity, bundle } = await client.attest(nodeAttestor, signal)
        anchor.learn(bundle)
        log.info(
          {
            spiffeId: identity.spiffeId,
            attestor: nodeAttestor.type,
            keyAgreement: status.keyAgreement,
            serverPq: status.serverPq,
          },
          'the node is attested',
        )
        return identity
      } catch (error) {
        signal.throwIfAborted()
        if (syncEndOf(error) === 'banned') return undefined
        const wait = backoff.next()
        const why = explainServerError(error)
        status.enter('attesting', why)
        log.warn(
          { error: why, ...(error instanceof AssayError && { reason: error.reason }) },
          `the node is not attested yet; trying again in ${wait.total('seconds').toFixed(1)} s`,
        )
        await clock.sleep(wait, signal)
      }
    }
  }

  /** Acts as `identity` from now on. Only one that cannot be had again is written down. */
  async #become(identity: AgentIdentity): Promise<void> {
    const { client, reporter, status, metrics, storage, log } = this.#options
    if (!identity.canReattest) {
      try {
        await storage.saveIdentity(identity)
      } catch (error) {
        log.error(
          { error: messageOf(error) },
          'cannot keep the agent’s identity: after a restart the node needs a new join token',
        )
      }
    }
    client.setIdentity(identity)
    this.#replaceTainted()
    reporter.changed()
    status.agentId = identity.spiffeId
    status.agentSvid = identity.certificates
    status.agentSvidExpiresAtSeconds = identity.expiresAtSeconds
    metrics.expiry('agent-svid', identity.expiresAtSeconds)
    metrics.issued('agent-svid', identity.issuedAtSeconds)
  }

  /** The server signed with an authority that was tainted meanwhile: it is asked again, but not at once. */
  #replaceTainted(): void {
    const { client, identities, clock } = this.#options
    const own = client.ownSvid()
    if (own === undefined || identities.bundles.trustOf(own.authorityId) !== 'tainted') return
    const soonMs = clock.now().add(taintedRetry).epochMilliseconds
    this.#svid.renewBy(Math.max(soonMs, identities.replaceAtMs(own.authorityId)))
  }

  /**
   * A server that has revoked the authority of our SVID lets us in no more, and so cannot say that it has. If that is
   * what has happened, the SVID must not wait for its moment.
   */
  #renewIfRefused(): void {
    const { client, identities, clock, random } = this.#options
    const own = client.ownSvid()
    if (own === undefined || identities.bundles.trustOf(own.authorityId) !== 'tainted') return
    const delayMs = longestRefusalMs * randomFraction(random)
    this.#svid.renewBy(clock.now().epochMilliseconds + delayMs)
  }

  async #loadIdentity(): Promise<AgentIdentity | undefined> {
    const { storage, log } = this.#options
    try {
      return await storage.loadIdentity()
    } catch (error) {
      // A file that others can read is for an operator to look at; a damaged one is good for nothing.
      if (error instanceof AssayError && error.code === 'failed-precondition') throw error
      log.error({ error }, 'the kept agent SVID is damaged and is passed over')
      return undefined
    }
  }

  /** What a node that can prove itself only once has kept, as long as it is of use. */
  async #storedIdentity(): Promise<AgentIdentity | undefined> {
    const { config, clock, log } = this.#options
    const stored = await this.#loadIdentity()
    if (stored === undefined) return undefined
    const nowSeconds = clock.now().epochMilliseconds / 1000
    const problem =
      trustDomainOf(stored.spiffeId) !== config.trust_domain
        ? 'it is of another trust domain'
        : stored.expiresAtSeconds <= nowSeconds
          ? 'it has expired'
          : undefined
    if (problem !== undefined) {
      log.warn({ spiffeId: stored.spiffeId }, `the kept agent SVID cannot be used: ${problem}`)
      return undefined
    }
    return stored
  }

  /** A node that need not attest has still to know what its server is recognised by. */
  async #untilTrustIsKnown(signal: AbortSignal): Promise<void> {
    const { anchor, status, clock, log } = this.#options
    const backoff = this.#newBackoff()
    for (;;) {
      try {
        await anchor.prepare(signal)
        return
      } catch (error) {
        signal.throwIfAborted()
        status.enter('starting', messageOf(error))
        log.error({ error: messageOf(error) }, 'cannot tell the server from others; trying again')
        await clock.sleep(backoff.next(), signal)
      }
    }
  }

  #newBackoff(): Backoff {
    const { random } = this.#options
    return new Backoff({ first: firstRetry, longest: longestRetry, random })
  }
}
