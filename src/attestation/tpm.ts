import { hash } from 'node:crypto'
import { concatBytes, utf8Bytes, utf8Text } from '#base/bytes.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { Credential } from '#tpm/verify/credential.ts'
import type { PresentedQuote } from '#tpm/verify/quote.ts'
import { maxAttestedBytes } from '#tpm/wire/attested.ts'
import { hmac } from '#tpm/wire/key-derivation.ts'
import { parseWhole, type Reader, sized, u8, u32, u64 } from '#tpm/wire/marshal.ts'
import { type PcrSelection, readPcrSelections, writePcrSelection } from '#tpm/wire/pcr-selection.ts'
import { maxPublicAreaBytes } from '#tpm/wire/public-area.ts'
import { maxSignatureBytes } from '#tpm/wire/signature.ts'
import type { TpmClaims } from '#tpm/wire/vendor.ts'

// What an agent and a server say to each other to attest a node by its TPM: evidence, challenge, answer. Every
// message begins with the version; the encoding is the TPM's own, big-endian and with 16-bit sizes, and a
// message has exactly the bytes its parts take.

/** The type of this attestation, in `AttestationData.type` and in agent IDs. */
export const tpmAttestationType = 'tpm'

const version = 1

/** Longest evidence that is read, in bytes. */
export const maxEvidenceBytes = 2 ** 20
const maxCertificates = 8
const maxCertificateBytes = 8192
const nonceBytes = 32
const proofBytes = 32

/** Keying material of the TLS connection that goes into the transcript (RFC 8446 §7.5, RFC 9266 §4). */
export const exporter = { label: 'EXPORTER-assay-attest', bytes: 32 } as const

/** First message, agent to server. */
export interface TpmEvidence {
  /** TPMT_PUBLIC. */
  readonly endorsementKey: Uint8Array
  /** TPMT_PUBLIC. */
  readonly attestationKey: Uint8Array
  /** DER: that of the endorsement key, then what may be its issuers; empty when the TPM holds none. */
  readonly certificates: readonly Uint8Array[]
  readonly claims: TpmClaims
}

/** Second message, server to agent. */
export interface TpmChallenge {
  readonly credential: Credential
  /** 32 random bytes. */
  readonly nonce: Uint8Array
  /** The registers to quote. */
  readonly selection: PcrSelection
}

/** Third message, agent to server. */
export interface TpmAnswer {
  /** {@link proofOf} the transcript. */
  readonly proof: Uint8Array
  readonly quote: PresentedQuote
}

/** `version(1) ‖ EK ‖ AK ‖ count(1) ‖ certificates ‖ manufacturer(4) ‖ firmware(8) ‖ model`. */
export function encodeEvidence(evidence: TpmEvidence): Uint8Array {
  const { endorsementKey, attestationKey, certificates, claims } = evidence
  return concatBytes(
    u8(version),
    sized(endorsementKey),
    sized(attestationKey),
    u8(certificates.length),
    ...certificates.map((der) => sized(der)),
    u32(claims.manufacturer),
    u64(claims.firmwareVersion),
    sized(utf8Bytes(claims.model)),
  )
}

/** @throws RangeError or TypeError when it is not well-formed, or not of version 1. */
export function parseEvidence(bytes: Uint8Array): TpmEvidence {
  if (bytes.length > maxEvidenceBytes)
    throw new RangeError(`it has ${bytes.length} bytes where ${maxEvidenceBytes} are the limit`)
  return parseWhole(bytes, (reader) => {
    readVersion(reader)
    return {
      endorsementKey: reader.sized(maxPublicAreaBytes),
      attestationKey: reader.sized(maxPublicAreaBytes),
      certificates: readList(reader, maxCertificates, () => reader.sized(maxCertificateBytes)),
      claims: {
        manufacturer: reader.u32(),
        firmwareVersion: reader.u64(),
        model: readModel(reader.sized(16)),
      },
    }
  })
}

/** `version(1) ‖ credentialBlob ‖ encryptedSecret ‖ nonce(32) ‖ TPML_PCR_SELECTION`. */
export function encodeChallenge({ credential, nonce, selection }: TpmChallenge): Uint8Array {
  return concatBytes(
    u8(version),
    sized(credential.credentialBlob),
    sized(credential.encryptedSecret),
    nonce,
    writePcrSelection(selection),
  )
}

/** @throws RangeError when it is not well-formed, not of version 1, or selects other than one bank. */
export function parseChallenge(bytes: Uint8Array): TpmChallenge {
  return parseWhole(bytes, (reader) => {
    readVersion(reader)
    const credential = { credentialBlob: reader.sized(256), encryptedSecret: reader.sized(600) }
    const nonce = reader.take(nonceBytes)
    const [selection, ...others] = readPcrSelections(reader)
    if (selection === undefined || others.length > 0)
      throw new RangeError('it does not select registers of one PCR bank')
    return { credential, nonce, selection }
  })
}

/** `version(1) ‖ proof(32) ‖ attested ‖ signature ‖ count(1) ‖ PCR values`. */
export function encodeAnswer({ proof, quote }: TpmAnswer): Uint8Array {
  return concatBytes(
    u8(version),
    proof,
    sized(quote.attested),
    sized(quote.signature),
    u8(quote.pcrValues.length),
    ...quote.pcrValues.map((value) => sized(value)),
  )
}

/** @throws RangeError when it is not well-formed, or not of version 1. */
export function parseAnswer(bytes: Uint8Array): TpmAnswer {
  return parseWhole(bytes, (reader) => {
    readVersion(reader)
    return {
      proof: reader.take(proofBytes),
      quote: {
        attested: reader.sized(maxAttestedBytes),
        signature: reader.sized(maxSignatureBytes),
        pcrValues: readList(reader, 32, () => reader.sized(64)),
      },
    }
  })
}

/** Everything an attestation is about. */
export interface TranscriptParts {
  readonly trustDomain: TrustDomain
  readonly nonce: Uint8Array
  /** SubjectPublicKeyInfo, DER, of the key the agent asks a certificate for. */
  readonly csrPublicKey: Uint8Array
  /** SubjectPublicKeyInfo, DER, of the endorsement key. */
  readonly endorsementKey: Uint8Array
  /** 34 bytes. */
  readonly attestationKeyName: Uint8Array
  /** 32 bytes from both ends of the TLS connection. */
  readonly exported: Uint8Array
}

/**
 * What the proof and the quote are over, 32 bytes:
 * `SHA-256("assay-tpm-attest/1" ‖ trust domain ‖ nonce ‖ SHA-256(CSR key) ‖ SHA-256(EK) ‖ AK Name ‖ exporter)`.
 * All parts but the trust domain have one length, so that two attestations never share it.
 */
export function transcript(parts: TranscriptParts): Uint8Array {
  return sha256(
    concatBytes(
      utf8Bytes('assay-tpm-attest/1'),
      utf8Bytes(parts.trustDomain),
      parts.nonce,
      sha256(parts.csrPublicKey),
      sha256(parts.endorsementKey),
      parts.attestationKeyName,
      parts.exported,
    ),
  )
}

/** HMAC-SHA-256 over a transcript with the activated secret: shows that its TPM holds both keys. */
export function proofOf(secret: Uint8Array, transcribed: Uint8Array): Uint8Array {
  return hmac('sha256', secret, transcribed)
}

function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(hash('sha256', bytes, 'buffer'))
}

function readVersion(reader: Reader): void {
  const found = reader.u8()
  if (found !== version) throw new RangeError(`it has version ${found}, and ${version} is known`)
}

function readList<T>(reader: Reader, limit: number, read: () => T): T[] {
  const count = reader.u8()
  if (count > limit) throw new RangeError(`it has a list of ${count} where ${limit} are the limit`)
  return Array.from({ length: count }, read)
}

function readModel(bytes: Uint8Array): string {
  const model = utf8Text(bytes)
  if (!/^[ -~]*$/.test(model)) throw new RangeError('the model is not printable ASCII')
  return model
}
