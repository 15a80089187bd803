import { equalBytes } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { type Random, randomUuid } from '#base/random.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { exportPkcs8, generateKeyPair, type KeyType } from '#pki/private-key.ts'
import { generateMlDsaKeyPair, type MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'
import { createMlDsaCsr } from '#pq-crypto/ml-dsa-certificate.ts'
import type {
  BatchNewX509SVIDRequest,
  BatchNewX509SVIDResponse,
  BatchNewX509SVIDResponse_Result,
} from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { errorFromItem } from '#rpc/status.ts'
import { spiffeIdOf } from '#spiffe/x509-svid.ts'
import type { AgentEntry } from '../manager/agent-entry.ts'
import type { X509Svid } from '../manager/x509-svid.ts'
import { certificateRequest, requestSubject } from './certificate-request.ts'
import { owned } from './messages.ts'

const limitMs = 30_000
/** Keys that are made before other work gets its turn. */
const keysAtOnce = 64
const breath = Temporal.Duration.from({ milliseconds: 1 })

/** A key that a certificate is asked for. */
export interface RequestedKey {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
  /** A certification request (PKCS #10), DER. */
  readonly csr: Uint8Array
  /** PKCS #8, DER. */
  readonly privateKey: () => Uint8Array
}

/** An elliptic-curve or RSA key. */
export async function newClassicalKey(keyType: KeyType): Promise<RequestedKey> {
  const pair = await generateKeyPair(keyType)
  const { publicKey } = pair
  return {
    publicKey,
    csr: certificateRequest(pair),
    privateKey: () => exportPkcs8(pair.privateKey),
  }
}

/** An ML-DSA key. */
export async function newMlDsaKey(parameterSet: MlDsaParameterSet): Promise<RequestedKey> {
  const pair = await generateMlDsaKeyPair(parameterSet)
  return {
    publicKey: pair.publicKey,
    csr: createMlDsaCsr(pair, requestSubject),
    privateKey: () => new Uint8Array(pair.privateKey.export({ format: 'der', type: 'pkcs8' })),
  }
}

export interface X509SigningOptions {
  /** Makes a key. */
  readonly newKey: () => Promise<RequestedKey>
  /** Has the server sign, an answer for each item. */
  readonly send: (
    request: BatchNewX509SVIDRequest,
    options: {
      readonly signal: AbortSignal
      readonly timeoutMs: number
      readonly requestId: string
    },
  ) => Promise<BatchNewX509SVIDResponse>
  /** Names the authority that a chain (DER, leaf first) ends at. */
  readonly issuerIdOf: (chain: readonly Uint8Array[]) => string
  readonly clock: Clock
  readonly random: Random
}

/**
 * Has the server sign one X.509-SVID for each entry, each for a fresh key.
 *
 * @throws AssayError when the whole call fails, or the answer is not one for each entry.
 */
export async function signX509Svids(
  entries: readonly AgentEntry[],
  { newKey, send, issuerIdOf, clock, random }: X509SigningOptions,
  signal: AbortSignal,
): Promise<readonly (X509Svid | AssayError)[]> {
  const keys: RequestedKey[] = []
  const params: { entryId: string; csr: Uint8Array }[] = []
  for (const [i, entry] of entries.entries()) {
    if (i > 0 && i % keysAtOnce === 0) await clock.sleep(breath, signal)
    const key = await newKey()
    keys.push(key)
    params.push({ entryId: entry.id, csr: key.csr })
  }
  const requestId = randomUuid(random)
  const { results } = await send({ params }, { signal, timeoutMs: limitMs, requestId })
  if (results.length !== entries.length) {
    throw new AssayError(
      'internal',
      `the server answered for ${results.length} entries, not for ${entries.length}`,
    )
  }
  return entries.map((entry, i) => {
    const result = results[i]
    const key = keys[i]
    if (result === undefined || key === undefined) throw new RangeError('unreachable')
    try {
      return x509SvidFrom(result, { entry, key, issuerIdOf, requestId })
    } catch (error) {
      return error instanceof AssayError ? error : unusable(entry, error)
    }
  })
}

/** @throws AssayError as the server refused it; another error when it is not what was asked for. */
function x509SvidFrom(
  { status, svid }: BatchNewX509SVIDResponse_Result,
  of: {
    readonly entry: AgentEntry
    readonly key: RequestedKey
    readonly issuerIdOf: (chain: readonly Uint8Array[]) => string
    readonly requestId: string
  },
): X509Svid {
  if (status !== undefined && status.code !== 0) throw errorFromItem(status, of.requestId)
  const certificates = (svid?.certChain ?? []).map(owned)
  const [leaf] = certificates
  if (leaf === undefined) throw new SyntaxError('it holds no certificate')
  const certificate = parseCertificate(leaf)
  if (!equalBytes(certificate.publicKey, of.key.publicKey)) {
    throw new SyntaxError('it is for another key')
  }
  const spiffeId = spiffeIdOf(certificate)
  if (spiffeId !== of.entry.spiffeId) throw new SyntaxError(`it is for ${spiffeId}`)
  return {
    spiffeId,
    certificates,
    privateKey: of.key.privateKey(),
    expiresAtMs: certificate.notAfterSeconds * 1000,
    authorityId: of.issuerIdOf(certificates),
  }
}

function unusable(entry: AgentEntry, cause: unknown): AssayError {
  return new AssayError(
    'internal',
    `cannot use the X.509-SVID that the server sent for entry ${entry.id}: ${messageOf(cause)}`,
    { cause },
  )
}
