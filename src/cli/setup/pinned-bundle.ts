import { createHash } from 'node:crypto'
import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { connectTls } from '#rpc/client.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { serverId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { verifyX509Svid } from '#spiffe/x509-svid.ts'
import { bundleFromWire } from '../wire.ts'

/** SHA-256 over the DER of an authority's certificate, lower-case hex: what `openssl x509 -fingerprint -sha256` shows. */
export const fingerprintOf = (der: Uint8Array): string =>
  createHash('sha256').update(der).digest('hex')

/** A fingerprint as people write it: with colons, in capitals, with `sha256:` before it. @throws SyntaxError */
export function parseFingerprint(text: string): string {
  const hex = text
    .replace(/^sha256[:=]/i, '')
    .replaceAll(/[: ]/g, '')
    .toLowerCase()
  if (/^[0-9a-f]{64}$/.test(hex)) return hex
  throw new SyntaxError(`invalid fingerprint '${text.slice(0, 100)}': it is 64 hexadecimal digits`)
}

/** Where the server is, and who asks. */
export interface BundleSource {
  readonly host: string
  readonly port: number
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly signal: AbortSignal
}

/**
 * Fetches the bundle from a server that nobody has vouched for yet. It may be used after {@link BundleOffer.verify} has
 * returned, and not before.
 */
export async function fetchBundle(source: BundleSource): Promise<BundleOffer> {
  const { host, port, trustDomain, clock, signal } = source
  let chain: readonly Uint8Array[] = []
  using connection = connectTls({
    host,
    port,
    clock,
    // One connection, so that the chain is that of whoever sends the bundle.
    pinned: true,
    verifyServer: (presented) => {
      chain = presented
    },
  })
  const message = await connection.client(BundleDefinition).getBundle({}, { signal })
  const bundle = bundleFromWire(message)
  if (bundle.trustDomain !== trustDomain) {
    throw new AssayError(
      'failed-precondition',
      `cannot use the bundle of ${host}: it is of ${bundle.trustDomain}, not ${trustDomain}`,
      { reason: 'other-trust-domain' },
    )
  }
  const nowSeconds = Math.floor(clock.now().epochMilliseconds / 1000)
  return new BundleOffer(bundle, { chain, nowSeconds })
}

/** A bundle that was sent by somebody. */
export class BundleOffer {
  readonly #bundle: Bundle
  readonly #chain: readonly Uint8Array[]
  readonly #nowSeconds: number

  constructor(bundle: Bundle, sent: { chain: readonly Uint8Array[]; nowSeconds: number }) {
    this.#bundle = bundle
    this.#chain = sent.chain
    this.#nowSeconds = sent.nowSeconds
  }

  /** Of the authorities in it, for somebody to compare. */
  get fingerprints(): readonly string[] {
    return this.#bundle.x509Authorities.map(({ certificate }) => fingerprintOf(certificate))
  }

  /**
   * The bundle, once its sender has proved to be the server by the one authority that an operator vouches for: it is in
   * the bundle, and the certificate the sender showed is `/spire/server` and leads to it.
   *
   * @throws AssayError `unauthenticated`, reason `fingerprint-mismatch` or one of `verifyX509Svid()`.
   */
  verify(fingerprint: string): Bundle {
    const bundle = this.#bundle
    const pinned = bundle.x509Authorities.filter(
      ({ certificate }) => fingerprintOf(certificate) === fingerprint,
    )
    if (pinned.length === 0) {
      throw new AssayError(
        'unauthenticated',
        `cannot trust the bundle: no authority in it has the fingerprint ${fingerprint}; somebody may stand in between, or the authority was replaced: look at what 'assay bundle fingerprint' prints on the authority`,
        { reason: 'fingerprint-mismatch' },
      )
    }
    const { spiffeId } = verifyX509Svid({
      certificates: this.#chain,
      bundles: (name) =>
        name === bundle.trustDomain ? { ...bundle, x509Authorities: pinned } : undefined,
      nowSeconds: this.#nowSeconds,
    })
    const expected = serverId(bundle.trustDomain)
    if (spiffeId === expected) return bundle
    throw new AssayError(
      'unauthenticated',
      `cannot trust the bundle: it was sent by ${spiffeId}, not ${expected}`,
      { reason: 'not-a-server' },
    )
  }
}
