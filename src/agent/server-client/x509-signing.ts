import { Metadata } from '@grpc/grpc-js'
import { equalBytes } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { exportPkcs8, generateKeyPair, type KeyPair, type KeyType } from '#pki/private-key.ts'
import type { Connection } from '#rpc/client.ts'
import {
  type BatchNewX509SVIDResponse_Result,
  SVIDDefinition,
} from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { errorFromStatus } from '#rpc/status.ts'
import { spiffeIdOf } from '#spiffe/x509-svid.ts'
import type { AgentEntry } from '../manager/agent-entry.ts'
import type { X509Svid } from '../manager/x509-svid.ts'
import { certificateRequest } from './certificate-request.ts'
import { owned } from './messages.ts'

const limitMs = 30_000
/** Keys that are made before other work gets its turn. */
const keysAtOnce = 64
const breath = Temporal.Duration.from({ milliseconds: 1 })

export interface X509SigningOptions {
  readonly connection: Connection
  readonly keyType: KeyType
  /** Names the authority that a chain (DER, leaf first) ends at. */
  readonly issuerIdOf: (chain: readonly Uint8Array[]) => string
  readonly clock: Clock
}

/**
 * Has the server sign one X.509-SVID for each entry (BatchNewX509SVID), each for a fresh key.
 *
 * @throws AssayError when the whole call fails, or the answer is not one for each entry.
 */
export async function signX509Svids(
  entries: readonly AgentEntry[],
  { connection, keyType, issuerIdOf, clock }: X509SigningOptions,
  signal: AbortSignal,
): Promise<readonly (X509Svid | AssayError)[]> {
  const pairs: KeyPair[] = []
  const params: { entryId: string; csr: Uint8Array }[] = []
  for (const [i, entry] of entries.entries()) {
    if (i > 0 && i % keysAtOnce === 0) await clock.sleep(breath, signal)
    const pair = await generateKeyPair(keyType)
    pairs.push(pair)
    params.push({ entryId: entry.id, csr: certificateRequest(pair) })
  }
  const { results } = await connection
    .client(SVIDDefinition)
    .batchNewX509SVID({ params }, { signal, timeoutMs: limitMs })
  if (results.length !== entries.length) {
    throw new AssayError(
      'internal',
      `the server answered for ${results.length} entries, not for ${entries.length}`,
    )
  }
  return entries.map((entry, i) => {
    const result = results[i]
    const pair = pairs[i]
    if (result === undefined || pair === undefined) throw new RangeError('unreachable')
    try {
      return x509SvidFrom(result, { entry, pair, issuerIdOf })
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
    readonly pair: KeyPair
    readonly issuerIdOf: (chain: readonly Uint8Array[]) => string
  },
): X509Svid {
  if (status !== undefined && status.code !== 0) {
    const { code, message: details } = status
    throw errorFromStatus({ code, details, metadata: new Metadata() })
  }
  const certificates = (svid?.certChain ?? []).map(owned)
  const [leaf] = certificates
  if (leaf === undefined) throw new SyntaxError('it holds no certificate')
  const certificate = parseCertificate(leaf)
  if (!equalBytes(certificate.publicKey, of.pair.publicKey)) {
    throw new SyntaxError('it is for another key')
  }
  const spiffeId = spiffeIdOf(certificate)
  if (spiffeId !== of.entry.spiffeId) throw new SyntaxError(`it is for ${spiffeId}`)
  return {
    spiffeId,
    certificates,
    privateKey: exportPkcs8(of.pair.privateKey),
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
