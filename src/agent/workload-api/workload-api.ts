import { equalBytes } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { LineLimit } from '#base/line-limit.ts'
import type { Log } from '#base/log.ts'
import type { CallContext, Encoded } from '#rpc/call.ts'
import type {
  JWTSVIDRequest,
  JWTSVIDResponse,
  SpiffeWorkloadAPIDefinition,
  ValidateJWTSVIDRequest,
  ValidateJWTSVIDResponse,
} from '#rpc/gen/spiffe/workload/workload.ts'
import type { Handlers } from '#rpc/service.ts'
import { requestIdOf } from '#rpc/status.ts'
import type { Bundle, JwtAuthority } from '#spiffe/bundle.ts'
import { encodeJwks } from '#spiffe/bundle-json.ts'
import { type ValidatedJwtSvid, validateJwtSvid } from '#spiffe/jwt-svid.ts'
import { encodePqJwks, pqBundle } from '#spiffe/pq-bundle.ts'
import { validatePqJwtSvid } from '#spiffe/pq-svid.ts'
import type { Selector } from '#spiffe/selector.ts'
import { parseSpiffeId, type SpiffeId, trustDomainOf } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Metrics, StreamKind } from '#telemetry/metrics.ts'
import type { WorkloadAttestation } from '../attestation/workload-attestation.ts'
import type { AgentEntry } from '../manager/agent-entry.ts'
import type { Content, Reader, Verifies } from '../manager/deliveries.ts'
import type { Entitlement } from '../manager/entitlements.ts'
import { withUniqueHints } from '../manager/hints.ts'
import type { ServedIdentities } from '../manager/served-identities.ts'
import type { AgentStatus } from '../status.ts'
import { claimsOf, encodeJwtBundles } from './jwt-responses.ts'
import type { Refusals } from './refusals.ts'
import type { StartGrace } from './start-grace.ts'
import { encodeX509Bundles, encodeX509Svids } from './x509-responses.ts'

/** What differs between the SPIFFE Workload API and its post-quantum counterpart. */
export interface IdentityKind {
  /** Of refusals: `no identity issued`. */
  readonly noIdentity: string
  /** What is shown of a bundle. */
  readonly shown: (bundle: Bundle) => Bundle
  readonly encodeJwks: (authorities: readonly JwtAuthority[]) => string
  readonly validateJwtSvid: typeof validateJwtSvid
}

/** The text is what SPIRE's agent says, which some clients look for. */
export const classicalKind: IdentityKind = {
  noIdentity: 'no identity issued',
  shown: (bundle) => bundle,
  encodeJwks,
  validateJwtSvid,
}

export const postQuantumKind: IdentityKind = {
  noIdentity: 'no identity issued that is post-quantum: no entry of this process has the hint "pq"',
  shown: pqBundle,
  encodeJwks: encodePqJwks,
  validateJwtSvid: validatePqJwtSvid,
}

export interface WorkloadApiOptions {
  readonly trustDomain: TrustDomain
  readonly identities: ServedIdentities
  readonly kind: IdentityKind
  readonly attestation: WorkloadAttestation
  readonly refusals: Refusals
  readonly status: AgentStatus
  readonly metrics: Metrics
  /** Give the own bundle also to callers that no entry matches. */
  readonly allowUnauthenticatedVerifiers: boolean
  /** Claims of foreign tokens that ValidateJWTSVID reports, beside `sub`, `exp` and `aud`. */
  readonly allowedForeignJwtClaims: readonly string[]
  /** Beginnings of selectors that the log may show. */
  readonly logSelectors: readonly string[]
  readonly grace: StartGrace
  /** Bounds the lines about refused calls, by user. */
  readonly refusalLines: Pick<LineLimit, 'admits'>
  readonly clock: Clock
  readonly log: Log
}

/** What a stream sends; it holds for as long as its entitlement's version. */
interface Answer extends Content {
  readonly encoded: Encoded
}

/** Most audiences one token is asked for. */
const maxAudiences = 64

/**
 * The SPIFFE Workload API. Every call attests its caller anew; a stream's first message goes out as soon as all SVIDs
 * are there, and each later one holds the whole new state.
 */
export class WorkloadApi implements Handlers<SpiffeWorkloadAPIDefinition> {
  readonly #options: WorkloadApiOptions
  readonly #foreignClaims: ReadonlySet<string>
  /** What callers were found to be, for the record of their refusal. */
  readonly #callers = new WeakMap<CallContext, readonly Selector[]>()

  constructor(options: WorkloadApiOptions) {
    this.#options = options
    this.#foreignClaims = new Set(['sub', 'exp', 'aud', ...options.allowedForeignJwtClaims])
  }

  fetchX509SVID(_request: object, context: CallContext): AsyncIterable<Encoded> {
    return this.#follow(context, {
      kind: 'x509-svid',
      answer: (caller) => this.#x509Svids(caller),
    })
  }

  fetchX509Bundles(_request: object, context: CallContext): AsyncIterable<Encoded> {
    return this.#follow(context, {
      kind: 'x509-bundles',
      answer: (caller) => caller.memo(this.#makeX509Bundles),
    })
  }

  fetchJWTBundles(_request: object, context: CallContext): AsyncIterable<Encoded> {
    return this.#follow(context, {
      kind: 'jwt-bundles',
      answer: (caller) => caller.memo(this.#makeJwtBundles),
    })
  }

  fetchJWTSVID(request: JWTSVIDRequest, context: CallContext): Promise<JWTSVIDResponse> {
    return this.#answer(context, async () => {
      const wanted = checkJwtRequest(request)
      const caller = await this.#admit(context)
      const entries = withUniqueHints(
        this.#entriesOf(caller).filter(
          (entry) => wanted === undefined || entry.spiffeId === wanted,
        ),
      )
      if (entries.length === 0) throw this.#noIdentity()
      const { identities } = this.#options
      const svids = await Promise.all(
        entries.map(async (entry) => {
          const { token } = await identities.jwtSvid(entry, request.audience, context.signal)
          return { spiffeId: entry.spiffeId, svid: token, hint: entry.hint }
        }),
      )
      return { svids }
    })
  }

  validateJWTSVID(
    request: ValidateJWTSVIDRequest,
    context: CallContext,
  ): Promise<ValidateJWTSVIDResponse> {
    return this.#answer(context, async () => {
      if (request.audience === '') throw invalid('audience must be specified')
      if (request.svid === '') throw invalid('svid must be specified')
      const caller = await this.#admit(context)
      const bundles = this.#bundlesOf(caller)
      if (bundles === undefined) throw this.#noIdentity()
      const nowSeconds = Math.trunc(this.#nowMs() / 1000)
      const { validateJwtSvid: validate } = this.#options.kind
      const token = validated(request, validate, { bundles, nowSeconds })
      const isOwn = trustDomainOf(token.spiffeId) === this.#options.trustDomain
      return {
        spiffeId: token.spiffeId,
        claims: claimsOf(token, isOwn ? undefined : this.#foreignClaims),
      }
    })
  }

  /** Sends an answer, and another one whenever it has changed. */
  async *#follow(
    context: CallContext,
    { kind, answer }: { kind: StreamKind; answer: (of: Entitlement) => Answer | undefined },
  ): AsyncIterable<Encoded> {
    const { identities, metrics, status } = this.#options
    try {
      const caller = await this.#admit(context)
      using _use = caller.use()
      using _stream = metrics.stream(kind)
      using _count = countStream(status)
      using delivery = identities.deliver(verifiesBy(kind), readerOf(context))
      if (kind === 'x509-svid') await identities.settled(caller, context.signal)
      let sent: Uint8Array | undefined
      for (;;) {
        const seen = caller.version
        this.#requireSynchronized()
        if (this.#entriesOf(caller).length === 0 && !this.#admitsAnyone(kind)) {
          throw this.#noIdentity()
        }
        if (kind === 'x509-svid') identities.want(caller)
        const next = answer(caller)
        if (next === undefined) delivery.nothing()
        else if (sent !== undefined && equalBytes(sent, next.encoded.bytes))
          delivery.unchanged(next)
        else {
          sent = next.encoded.bytes
          delivery.offer(next)
          yield next.encoded
          // Only once the message has gone to the socket is the next one asked for.
          delivery.taken()
        }
        await caller.changedSince(seen, context.signal)
      }
    } catch (error) {
      throw this.#refused(context, error)
    }
  }

  async #answer<T>(context: CallContext, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw this.#refused(context, error)
    }
  }

  /** Who calls, and what it is entitled to. */
  async #admit(context: CallContext): Promise<Entitlement> {
    const { attestation, identities, grace } = this.#options
    if (!identities.isSynchronized) await grace.wait(context.signal)
    this.#requireSynchronized()
    const selectors = await attestation.attestPeer(context.peer, context.signal)
    this.#callers.set(context, selectors)
    this.#requireSynchronized()
    return identities.entitlementOf(selectors)
  }

  #requireSynchronized(): void {
    const { identities, status } = this.#options
    if (identities.isSynchronized) return
    const why = status.detail === '' ? status.state : `${status.state}: ${status.detail}`
    throw new AssayError('unavailable', `the agent has no word of its server yet (${why})`, {
      reason: 'not-synchronized',
    })
  }

  #admitsAnyone(kind: StreamKind): boolean {
    return kind !== 'x509-svid' && this.#options.allowUnauthenticatedVerifiers
  }

  /** Undefined: nothing new can be said yet. */
  #x509Svids(caller: Entitlement): Answer | undefined {
    const answer = caller.memo(this.#makeX509Svids)
    if (answer instanceof AssayError) throw answer
    const nowMs = this.#nowMs()
    if (answer === undefined || answer.svids.every((svid) => svid.expiresAtMs > nowMs))
      return answer
    // One of them has expired this very moment: what is left is the answer.
    const fresh = this.#makeX509Svids(caller)
    if (fresh instanceof AssayError) throw fresh
    return fresh
  }

  readonly #makeX509Svids = (caller: Entitlement): Answer | AssayError | undefined => {
    const view = this.#options.identities.x509View(caller)
    switch (view.state) {
      case 'none':
      case 'pending':
        return undefined
      case 'unavailable':
        return new AssayError('unavailable', view.error.message, {
          reason: 'x509-svid-unavailable',
          cause: view.error,
        })
      case 'ready':
        return {
          encoded: encodeX509Svids({
            ...view,
            bundle: this.#options.kind.shown(view.bundle),
            federated: view.federated.map(this.#options.kind.shown),
          }),
          bundle: view.bundle,
          svids: view.identities.map(({ svid }) => svid),
        }
    }
  }

  readonly #makeX509Bundles = (caller: Entitlement): Answer | undefined =>
    this.#bundlesAnswer(this.#bundleListOf(caller), encodeX509Bundles)

  readonly #makeJwtBundles = (caller: Entitlement): Answer | undefined =>
    this.#bundlesAnswer(this.#bundleListOf(caller), (bundles) =>
      encodeJwtBundles(bundles, this.#options.kind.encodeJwks),
    )

  /** The own one first. */
  #bundleListOf(caller: Entitlement): readonly [Bundle, ...Bundle[]] | undefined {
    const { identities } = this.#options
    const { ownBundle: own } = identities
    return own === undefined ? undefined : [own, ...identities.federatedOf(this.#entriesOf(caller))]
  }

  /** The bundles a caller may verify with; undefined: none. */
  #bundlesOf(caller: Entitlement): ((name: TrustDomain) => Bundle | undefined) | undefined {
    const list = this.#bundleListOf(caller)
    const isEntitled =
      this.#entriesOf(caller).length > 0 || this.#options.allowUnauthenticatedVerifiers
    if (list === undefined || !isEntitled) return undefined
    const shown = list.map(this.#options.kind.shown)
    return (name) => shown.find((bundle) => bundle.trustDomain === name)
  }

  #entriesOf(caller: Entitlement): readonly AgentEntry[] {
    return this.#options.identities.entriesOf(caller)
  }

  #bundlesAnswer(
    bundles: readonly [Bundle, ...Bundle[]] | undefined,
    encode: (bundles: readonly Bundle[]) => Encoded,
  ): Answer | undefined {
    if (bundles === undefined) return undefined
    const encoded = encode(bundles.map(this.#options.kind.shown))
    return { encoded, bundle: bundles[0], svids: [] }
  }

  #noIdentity(): AssayError {
    const { noIdentity } = this.#options.kind
    return new AssayError('permission-denied', noIdentity, { reason: 'no-identity-issued' })
  }

  /** Keeps and logs a refusal, and says what the caller gets to know of it. */
  #refused(context: CallContext, error: unknown): unknown {
    if (context.signal.aborted || !(error instanceof AssayError)) return error
    const selectors = this.#callers.get(context) ?? []
    const reason = error.reason ?? error.code
    this.#options.refusals.record(context, { selectors, reason })
    const told = withRequestIds(error, context.requestId)
    const { logSelectors, log, refusalLines } = this.#options
    const { peer } = context
    if (!refusalLines.admits(peer.kind === 'unix' ? `uid=${peer.uid}` : '')) return told
    const shown = selectors.filter((each) => logSelectors.some((start) => each.startsWith(start)))
    const serverRequestId = requestIdOf(error)
    log.info(
      {
        requestId: context.requestId,
        ...(serverRequestId !== undefined && { serverRequestId }),
        method: context.method,
        ...(peer.kind === 'unix' && { pid: peer.pid, uid: peer.uid }),
        reason,
        ...(shown.length > 0 && { selectors: shown }),
        error: messageOf(error),
      },
      'a call of the Workload API is refused',
    )
    return told
  }

  #nowMs(): number {
    return this.#options.clock.now().epochMilliseconds
  }
}

function verifiesBy(kind: StreamKind): Verifies {
  return kind === 'jwt-bundles' ? 'jwt' : 'x509'
}

function readerOf({ peer }: CallContext): Reader | undefined {
  return peer.kind === 'unix' ? peer : undefined
}

function countStream(status: AgentStatus): Disposable {
  status.streams += 1
  return {
    [Symbol.dispose]: () => {
      status.streams -= 1
    },
  }
}

/** @returns the SPIFFE ID that is asked for; undefined: every one the caller has. */
function checkJwtRequest(request: JWTSVIDRequest): SpiffeId | undefined {
  if (request.audience.length === 0 || request.audience.includes('')) {
    throw invalid('audience must be specified')
  }
  if (request.audience.length > maxAudiences) {
    throw invalid(`cannot ask for more than ${maxAudiences} audiences`)
  }
  if (request.spiffeId === '') return undefined
  try {
    return parseSpiffeId(request.spiffeId)
  } catch (error) {
    throw invalid(`invalid requested SPIFFE ID: ${messageOf(error)}`, error)
  }
}

function validated(
  request: ValidateJWTSVIDRequest,
  validate: typeof validateJwtSvid,
  against: {
    readonly bundles: (name: TrustDomain) => Bundle | undefined
    readonly nowSeconds: number
  },
): ValidatedJwtSvid {
  try {
    return validate(request.svid, { audience: request.audience, ...against })
  } catch (error) {
    throw invalid(messageOf(error), error)
  }
}

/** What the workload is told: most client libraries show the message, and no trailer. */
function withRequestIds(error: AssayError, requestId: string): AssayError {
  const atServer = requestIdOf(error)
  const ids = atServer === undefined ? requestId : `${requestId}, at the server ${atServer}`
  const { code, message, reason, cause } = error
  return new AssayError(code, `${message} (request ${ids})`, {
    cause,
    ...(reason !== undefined && { reason }),
  })
}

function invalid(message: string, cause?: unknown): AssayError {
  const reason = cause instanceof AssayError ? cause.reason : undefined
  return new AssayError('invalid-argument', message, {
    cause,
    ...(reason !== undefined && { reason }),
  })
}
