import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { type Certificate, parseCertificate, splitCertificates } from '#pki/certificate.ts'
import { jsonMember } from '#pki/json.ts'
import { parseCompactJws } from '#pki/jws.ts'
import type { Connection, RpcClient } from '#rpc/client.ts'
import { PostQuantumDefinition } from '#rpc/gen/assay/workload/v1/post_quantum.ts'
import {
  SpiffeWorkloadAPIDefinition,
  type X509SVIDResponse,
} from '#rpc/gen/spiffe/workload/workload.ts'
import { parseSpiffeId, type SpiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain, type TrustDomain } from '#spiffe/trust-domain.ts'
import { connectEndpoint } from './connect-endpoint.ts'

/** Which SVIDs a workload asks for. */
export type IdentityKind = 'classical' | 'post-quantum'

/** An X.509-SVID with its key, as a workload holds it. */
export interface WorkloadX509Svid {
  readonly spiffeId: SpiffeId
  /** Leaf first, without the root. */
  readonly certificates: readonly Certificate[]
  /** PKCS#8, DER. */
  readonly privateKey: Uint8Array
  readonly hint: string
}

/** Everything X.509 a workload needs, replaced as a whole by each message. */
export interface X509Context {
  /** The first is the default identity. */
  readonly svids: readonly WorkloadX509Svid[]
  /** DER roots by trust domain, the own one among them. */
  readonly bundles: ReadonlyMap<TrustDomain, readonly Uint8Array[]>
}

/** A JWT-SVID as a workload gets it. */
export interface WorkloadJwtSvid {
  readonly spiffeId: SpiffeId
  /** JWS compact serialization. It is a bearer secret until it expires. */
  readonly token: string
  /** Unix time, as the token says, which the agent signed for us. */
  readonly expiresAtSeconds: number
  readonly hint: string
}

/** What a JWT-SVID says, once the agent has verified it. */
export interface ValidatedJwtSvid {
  readonly spiffeId: SpiffeId
  readonly claims: Readonly<Record<string, unknown>>
}

/** `exp` of a token that the agent handed out, and is trusted for. */
function expiryOf(token: string): number {
  const exp = jsonMember(parseCompactJws(token).claims, 'exp')
  if (typeof exp === 'number') return Math.floor(exp)
  throw new AssayError(
    'internal',
    'the agent answered FetchJWTSVID with a token that never expires',
  )
}

const trustDomainOfKey = (key: string): TrustDomain =>
  parseTrustDomain(key.replace(/^spiffe:\/\//, ''))

function x509Context(response: X509SVIDResponse): X509Context {
  if (response.svids.length === 0) {
    throw new AssayError('internal', 'the agent answered FetchX509SVID without an SVID')
  }
  const bundles = new Map<TrustDomain, readonly Uint8Array[]>()
  const svids = response.svids.map((svid) => {
    const spiffeId = parseSpiffeId(svid.spiffeId)
    const [, , name = ''] = spiffeId.split('/')
    bundles.set(parseTrustDomain(name), splitCertificates(svid.bundle))
    return {
      spiffeId,
      certificates: splitCertificates(svid.x509Svid).map((der) => parseCertificate(der)),
      privateKey: svid.x509SvidKey,
      hint: svid.hint,
    }
  })
  for (const [key, der] of response.federatedBundles)
    bundles.set(trustDomainOfKey(key), splitCertificates(der))
  return { svids, bundles }
}

/**
 * A client of the SPIFFE Workload API. Streams yield the full state with each message and end by throwing the
 * agent's answer (`permission-denied` when no identity is issued to the caller) or when `signal` aborts.
 */
export class WorkloadApi implements Disposable {
  readonly #connection: Connection
  readonly #client: Pick<
    RpcClient<SpiffeWorkloadAPIDefinition>,
    keyof RpcClient<PostQuantumDefinition>
  >

  /**
   * @param endpoint `unix:///path` or `tcp://ip:port` (SPIFFE Workload Endpoint §4).
   * @param kind `post-quantum`: what the same calls give of SVIDs whose one key and signature are ML-DSA.
   */
  constructor(
    endpoint: string,
    clock: Clock,
    { kind = 'classical' }: { readonly kind?: IdentityKind } = {},
  ) {
    this.#connection = connectEndpoint(endpoint, clock)
    this.#client =
      kind === 'classical'
        ? this.#connection.client(SpiffeWorkloadAPIDefinition)
        : this.#connection.client(PostQuantumDefinition)
  }

  [Symbol.dispose](): void {
    this.#connection.close()
  }

  /** Connects now, and not at the first call. @throws AssayError `unavailable` when nobody listens. */
  async connect(options: { readonly signal: AbortSignal }): Promise<void> {
    await this.#connection.connect(options)
  }

  /** Every X.509 context, the present one at once. */
  async *x509Contexts(signal: AbortSignal): AsyncGenerator<X509Context> {
    for await (const response of this.#client.fetchX509SVID({}, this.#options(signal))) {
      yield x509Context(response)
    }
  }

  /** The present X.509 context. */
  async x509Context(signal: AbortSignal): Promise<X509Context> {
    for await (const context of this.x509Contexts(signal)) return context
    throw new AssayError('unavailable', 'the agent ended the stream without an answer')
  }

  /** DER roots by trust domain. */
  async x509Bundles(signal: AbortSignal): Promise<ReadonlyMap<TrustDomain, readonly Uint8Array[]>> {
    for await (const { bundles } of this.#client.fetchX509Bundles({}, this.#options(signal))) {
      return new Map(
        [...bundles].map(([key, der]) => [trustDomainOfKey(key), splitCertificates(der)]),
      )
    }
    throw new AssayError('unavailable', 'the agent ended the stream without an answer')
  }

  /** The JWK set of each trust domain, as JSON text, the present ones at once. */
  async *jwtBundleSets(signal: AbortSignal): AsyncGenerator<ReadonlyMap<TrustDomain, string>> {
    for await (const { bundles } of this.#client.fetchJWTBundles({}, this.#options(signal))) {
      yield new Map(
        [...bundles].map(([key, json]) => [trustDomainOfKey(key), new TextDecoder().decode(json)]),
      )
    }
  }

  /** The present JWK set of each trust domain, as JSON text. */
  async jwtBundles(signal: AbortSignal): Promise<ReadonlyMap<TrustDomain, string>> {
    for await (const bundles of this.jwtBundleSets(signal)) return bundles
    throw new AssayError('unavailable', 'the agent ended the stream without an answer')
  }

  /** One JWT-SVID for each identity of the caller, or for `spiffeId` alone. */
  async jwtSvids(
    audience: readonly string[],
    { spiffeId, signal }: { readonly spiffeId?: string; readonly signal: AbortSignal },
  ): Promise<readonly WorkloadJwtSvid[]> {
    const { svids } = await this.#client.fetchJWTSVID(
      { audience: [...audience], spiffeId: spiffeId ?? '' },
      this.#options(signal),
    )
    return svids.map(({ spiffeId: id, svid, hint }) => ({
      spiffeId: parseSpiffeId(id),
      token: svid,
      expiresAtSeconds: expiryOf(svid),
      hint,
    }))
  }

  /** Asks the agent to verify a JWT-SVID for `audience`. */
  async validateJwtSvid(
    token: string,
    { audience, signal }: { readonly audience: string; readonly signal: AbortSignal },
  ): Promise<ValidatedJwtSvid> {
    const { spiffeId, claims } = await this.#client.validateJWTSVID(
      { svid: token, audience },
      this.#options(signal),
    )
    return { spiffeId: parseSpiffeId(spiffeId), claims: claims ?? {} }
  }

  #options(signal: AbortSignal) {
    return { signal, metadata: { 'workload.spiffe.io': 'true' } }
  }
}
