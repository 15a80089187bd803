import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { type EcKeyType, generateEcKeyPair, type KeyType } from '#pki/private-key.ts'
import type { PqPolicy, PqState } from '#pq-crypto/alternative-chain.ts'
import type { MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'
import { type Connection, connectTls, type RpcClient } from '#rpc/client.ts'
import { FeedDefinition } from '#rpc/gen/assay/server/v1/feed.ts'
import { PostQuantumDefinition } from '#rpc/gen/assay/server/v1/post_quantum.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import type { TlsProfile } from '#rpc/tls.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { AgentEntry } from '../manager/agent-entry.ts'
import type { Holdings } from '../manager/holdings.ts'
import type { Issuer } from '../manager/identities.ts'
import type { JwtSvid } from '../manager/jwt-svid-cache.ts'
import type { Update } from '../manager/update.ts'
import type { X509Svid } from '../manager/x509-svid.ts'
import type { NodeAttestor } from '../plugin/node-attestor/node-attestor.ts'
import { type AgentIdentity, agentIdentity } from './agent-identity.ts'
import { attestNode } from './attest-node.ts'
import { certificateRequest } from './certificate-request.ts'
import { jwtSvidFrom } from './jwt-svid.ts'
import { bundleFrom, reportMessage, updateFrom, withPq } from './messages.ts'
import { poll } from './poll.ts'
import { type ServerTrust, verifyServer } from './server-trust.ts'
import { endWhenStalled } from './stalled.ts'
import { newClassicalKey, newMlDsaKey, signX509Svids } from './x509-signing.ts'

export interface ServerClientOptions {
  /** A host name or an IP address. */
  readonly host: string
  readonly port: number
  readonly trustDomain: TrustDomain
  /** Asked for at each connection. */
  readonly trust: () => ServerTrust
  /** Sequence number of the own bundle that is held; zero: none is. */
  readonly heldSequence: () => bigint
  /** Names the authority that a chain (DER, leaf first) ends at. */
  readonly issuerIdOf: (chain: readonly Uint8Array[]) => string
  readonly requirePqKem: boolean
  readonly pqPolicy: PqPolicy
  /** Also decides the type of the agent's own key. */
  readonly profile: TlsProfile
  /** Told of each connection the group its keys are from. */
  readonly onConnected: (group: string) => void
  /** Told of each server that was recognised what was found of its post-quantum signatures. */
  readonly onServerVerified: (pq: PqState) => void
  readonly workloadKeyType: KeyType
  /** Of the ML-DSA keys that are made for workloads. */
  readonly pqParameterSet: () => MlDsaParameterSet
  /** How often a server without a feed is asked. */
  readonly syncInterval: Temporal.Duration
  readonly agentVersion: string
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

const callLimitMs = 30_000
/** A feed says something at least every 60 seconds. */
const longestSilence = Temporal.Duration.from({ seconds: 100 })
/** However many calls wait for a server that is away, it is not knocked at more often than this, nor much more rarely. */
const longestReconnectMs = 5_000
/** What was under way over a connection that is being replaced may still end. */
const farewell = Temporal.Duration.from({ seconds: 5 })

const agentKeyType = (profile: TlsProfile): EcKeyType =>
  profile === 'cnsa2' ? 'ec-p384' : 'ec-p256'

/** The server, as its agent knows it. One connection is used for everything, and made anew with each identity. */
export class ServerClient implements Issuer, Disposable {
  readonly x509Signer = {
    sign: (entries: readonly AgentEntry[], signal: AbortSignal) => this.#sign(entries, signal),
  }
  readonly pqX509Signer = {
    sign: (entries: readonly AgentEntry[], signal: AbortSignal) => this.#signPq(entries, signal),
  }
  readonly #options: ServerClientOptions
  readonly #closed = new AbortController()
  #connection: Connection | undefined
  #identity: AgentIdentity | undefined
  /** Ends what follows the server over the present connection. */
  #replaced = new AbortController()

  constructor(options: ServerClientOptions) {
    this.#options = options
  }

  /** Who the agent is from now on; undefined: nobody yet, and only attestation works. */
  setIdentity(identity: AgentIdentity | undefined): void {
    this.#identity = identity
    const old = this.#connection
    this.#connection = undefined
    this.#replaced.abort(new AssayError('unavailable', 'the agent has a new identity'))
    this.#replaced = new AbortController()
    if (old !== undefined) void this.#closeLater(old)
  }

  /**
   * Proves the node with a fresh key, and fetches the bundle over the same connection.
   *
   * @throws AssayError
   */
  async attest(
    attestor: NodeAttestor,
    signal: AbortSignal,
  ): Promise<{ readonly identity: AgentIdentity; readonly bundle: Bundle }> {
    using connection = this.#connect({ pinned: true })
    const keyType = agentKeyType(this.#options.profile)
    const identity = await attestNode({ connection, attestor, keyType, signal })
    const bundle = await this.#fetchBundle(connection, signal)
    return { identity, bundle }
  }

  /** Extends an identity that cannot be attested again, with a fresh key. */
  async renew(current: AgentIdentity, signal: AbortSignal): Promise<AgentIdentity> {
    const pair = generateEcKeyPair(agentKeyType(this.#options.profile))
    const { svid } = await this.#live()
      .client(AgentDefinition)
      .renewAgent({ params: { csr: certificateRequest(pair) } }, { signal, timeoutMs: callLimitMs })
    const { canReattest } = current
    return agentIdentity(svid?.certChain ?? [], { key: pair.privateKey, canReattest })
  }

  /**
   * What the server has to tell, from everything to each change as it happens. It ends well when the agent gets a new
   * identity, and otherwise, when the connection ends, with what was in the way.
   */
  async *watch(signal: AbortSignal): AsyncGenerator<Update> {
    const { signal: replaced } = this.#replaced
    try {
      yield* this.#watch(this.#live(), AbortSignal.any([signal, replaced]))
    } catch (error) {
      if (!replaced.aborted || signal.aborted) throw error
    }
  }

  async *#watch(connection: Connection, signal: AbortSignal): AsyncGenerator<Update> {
    const { trustDomain, agentVersion, clock, heldSequence, log } = this.#options
    try {
      const request = { agentVersion, bundleSequenceNumber: heldSequence() }
      const feed = connection.client(FeedDefinition).watch(request, { signal })
      const alive = endWhenStalled(feed, { limit: longestSilence, clock, signal })
      for await (const message of alive) yield updateFrom(message, trustDomain, log)
      return
    } catch (error) {
      if (!(error instanceof AssayError && error.code === 'unimplemented')) throw error
    }
    log.info({}, 'the server has no feed of changes; it is asked for them at intervals')
    await this.#postStatus(connection, signal)
    yield* poll({ ...this.#options, connection, interval: this.#options.syncInterval }, signal)
  }

  /** The agent's own SVID, as far as its rotation goes; undefined: it has none. */
  ownSvid(): Pick<X509Svid, 'authorityId' | 'expiresAtMs'> | undefined {
    if (this.#identity === undefined) return undefined
    const expiresAtMs = this.#identity.expiresAtSeconds * 1000
    try {
      return { authorityId: this.#options.issuerIdOf(this.#identity.certificates), expiresAtMs }
    } catch {
      // It ends at no authority that is known.
      return { authorityId: '', expiresAtMs }
    }
  }

  /** Tells the server what the agent and its workloads have. @throws AssayError `unimplemented`: it does not count. */
  async report(holdings: Holdings, signal: AbortSignal): Promise<void> {
    await this.#live()
      .client(FeedDefinition)
      .report(reportMessage(holdings), { signal, timeoutMs: callLimitMs })
  }

  async issueJwtSvid(request: JwtRequest, signal: AbortSignal): Promise<JwtSvid> {
    return await newJwtSvid(this.#live().client(SVIDDefinition), request, signal)
  }

  async issuePqJwtSvid(request: JwtRequest, signal: AbortSignal): Promise<JwtSvid> {
    return await newJwtSvid(this.#live().client(PostQuantumDefinition), request, signal)
  }

  fetchBundle(signal: AbortSignal): Promise<Bundle> {
    return this.#fetchBundle(this.#live(), signal)
  }

  [Symbol.dispose](): void {
    this.#closed.abort(new Error('the agent is stopping'))
    this.#replaced.abort(new Error('the agent is stopping'))
    this.#connection?.close()
    this.#connection = undefined
  }

  #sign(
    entries: readonly AgentEntry[],
    signal: AbortSignal,
  ): Promise<readonly (X509Svid | AssayError)[]> {
    const { workloadKeyType: keyType, issuerIdOf, clock, random } = this.#options
    const client = this.#live().client(SVIDDefinition)
    return signX509Svids(
      entries,
      {
        newKey: () => newClassicalKey(keyType),
        send: (request, options) => client.batchNewX509SVID(request, options),
        issuerIdOf,
        clock,
        random,
      },
      signal,
    )
  }

  #signPq(
    entries: readonly AgentEntry[],
    signal: AbortSignal,
  ): Promise<readonly (X509Svid | AssayError)[]> {
    const { pqParameterSet, issuerIdOf, clock, random } = this.#options
    const client = this.#live().client(PostQuantumDefinition)
    return signX509Svids(
      entries,
      {
        newKey: () => newMlDsaKey(pqParameterSet()),
        send: (request, options) => client.batchNewX509SVID(request, options),
        issuerIdOf,
        clock,
        random,
      },
      signal,
    )
  }

  async #fetchBundle(connection: Connection, signal: AbortSignal): Promise<Bundle> {
    const { trustDomain, log } = this.#options
    const { bundle: message, pq } = await this.#getBundle(connection, signal)
    const bundle = withPq(bundleFrom(message, log), pq, log)
    if (bundle.trustDomain === trustDomain) return bundle
    throw new AssayError(
      'internal',
      `the server sent the bundle of ${bundle.trustDomain}, not of ${trustDomain}`,
    )
  }

  /** Both parts at once, where the server has both. */
  async #getBundle(connection: Connection, signal: AbortSignal) {
    const options = { signal, timeoutMs: callLimitMs }
    try {
      const { bundle, pq } = await connection.client(PostQuantumDefinition).getBundle({}, options)
      if (bundle !== undefined) return { bundle, pq }
    } catch (error) {
      if (!(error instanceof AssayError && error.code === 'unimplemented')) throw error
    }
    const bundle = await connection.client(BundleDefinition).getBundle({}, options)
    return { bundle, pq: undefined }
  }

  /** Only for the record of the node; the agent works without it. */
  async #postStatus(connection: Connection, signal: AbortSignal): Promise<void> {
    const { agentVersion, log } = this.#options
    try {
      const options = { signal, timeoutMs: callLimitMs }
      await connection.client(AgentDefinition).postStatus({ agentVersion }, options)
    } catch (error) {
      signal.throwIfAborted()
      log.debug({ error }, 'cannot tell the server the version of this agent')
    }
  }

  /** The connection that shows the present identity. */
  #live(): Connection {
    if (this.#identity === undefined) {
      throw new AssayError('unavailable', 'the node is not attested yet', {
        reason: 'not-attested',
      })
    }
    this.#connection ??= this.#connect({ pinned: false })
    return this.#connection
  }

  #connect({ pinned }: { readonly pinned: boolean }): Connection {
    const { host, port, trustDomain, trust, requirePqKem, profile, onConnected, clock } =
      this.#options
    const identity = pinned ? undefined : this.#identity
    return connectTls({
      host,
      port,
      clock,
      requirePqKem,
      profile,
      onConnected,
      pinned,
      maxReconnectMs: longestReconnectMs,
      verifyServer: (chain) => {
        const pq = verifyServer(chain, {
          trust: trust(),
          trustDomain,
          pqPolicy: this.#options.pqPolicy,
          nowSeconds: Math.trunc(clock.now().epochMilliseconds / 1000),
        })
        if (pq !== undefined) this.#options.onServerVerified(pq)
      },
      ...(identity !== undefined && {
        identity: { key: identity.key, certificates: identity.certificates },
      }),
    })
  }

  async #closeLater(connection: Connection): Promise<void> {
    try {
      await this.#options.clock.sleep(farewell, this.#closed.signal)
    } catch {
      // The agent is stopping: it is closed at once.
    } finally {
      connection.close()
    }
  }
}

interface JwtRequest {
  readonly entryId: string
  readonly audience: readonly string[]
}

/** Both services have the call. */
async function newJwtSvid(
  { newJWTSVID }: Pick<RpcClient<SVIDDefinition>, 'newJWTSVID'>,
  request: JwtRequest,
  signal: AbortSignal,
): Promise<JwtSvid> {
  return jwtSvidFrom(await newJWTSVID(request, { signal, timeoutMs: callLimitMs }))
}
