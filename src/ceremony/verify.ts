import { readFile } from 'node:fs/promises'
import { equalBytes, utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { type Certificate, parseCertificate, verifyCertificateSignature } from '#pki/certificate.ts'
import { type CeremonyFile, parseCeremonyFile, type TokenSettings } from './ceremony-file.ts'
import { lintCaCertificate } from './lints.ts'
import { hasSigned } from './operators.ts'
import { draftFor, planCeremony, refuseFindings, sha256 } from './plan.ts'
import { signaturePath } from './run.ts'
import { parseTranscript, type Transcript } from './transcript.ts'

/** A transcript that is what it says it is. */
export interface VerifiedTranscript {
  readonly transcript: Transcript
  readonly certificate: Certificate
  /** Who signed it, with the SHA-256 of each public key (SubjectPublicKeyInfo), hex. */
  readonly signers: ReadonlyMap<string, string>
}

/** Signatures by operator. */
export type Signatures = ReadonlyMap<string, Uint8Array>

/**
 * Reads the signatures that stand beside a transcript, for the operators that it names.
 *
 * @throws SyntaxError or ConfigError when the transcript is not one.
 */
export async function loadSignatures(document: Uint8Array, path: string): Promise<Signatures> {
  const { operators } = parseTranscript(document, path)
  const found = new Map<string, Uint8Array>()
  for (const name of operators.signing.keys()) {
    try {
      found.set(name, new Uint8Array(await readFile(signaturePath(path, name))))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
  return found
}

/**
 * Checks that a transcript is of one piece: that the file in it has its hash, and comes to the very bytes that were
 * planned and that were signed; that the certificate has these bytes and its issuer's signature, and breaks no rule;
 * that keys on tokens are guarded; and that as many operators signed the transcript as the file wanted.
 *
 * Whose the operators' keys are, nothing in a transcript can prove: compare their hashes.
 *
 * @throws AssayError `failed-precondition`, reason `transcript-wrong`, that names the first thing that is not right.
 */
export function verifyTranscript(
  document: Uint8Array,
  of: {
    readonly path: string
    readonly signatures: Signatures
    /** The certificate that was handed over, DER; undefined: it is not compared. */
    readonly certificate: Uint8Array | undefined
  },
): VerifiedTranscript {
  try {
    return verified(document, of)
  } catch (cause) {
    if (cause instanceof AssayError && cause.reason === 'transcript-wrong') throw cause
    throw wrong(messageOf(cause), cause)
  }
}

function verified(
  document: Uint8Array,
  of: Parameters<typeof verifyTranscript>[1],
): VerifiedTranscript {
  const transcript = parseTranscript(document, of.path)
  const { file, key, operators, tbs } = transcript
  if (sha256(utf8Bytes(file.text)) !== file.sha256) throw wrong('the file in it has another hash')
  const ceremony = parseCeremonyFile(file.text, file.name)
  const issuer =
    transcript.issuer === undefined ? undefined : parseCertificate(transcript.issuer.certificate)
  if ((issuer === undefined) !== (ceremony.kind === 'root')) throw wrong('the issuer does not fit')
  if (key.made !== (ceremony.key.kind === 'generate')) throw wrong('the key does not fit the file')

  const plan = planCeremony(ceremony, { issuer, publicKey: key.made ? undefined : key.public_key })
  if (plan.tbsSha256 !== transcript.planned_tbs_sha256) throw wrong('another plan was agreed to')
  if ((ceremony.expect_tbs_sha256 ?? plan.tbsSha256) !== plan.tbsSha256) {
    throw wrong('the file expects another plan')
  }
  const draft = draftFor(ceremony, { issuer }, key.public_key)
  if (!equalBytes(draft.toBeSigned, tbs)) throw wrong('the signed bytes are not those of the file')
  if (sha256(tbs) !== transcript.tbs_sha256) throw wrong('the signed bytes have another hash')

  const certificate = parseCertificate(transcript.certificate)
  if (!equalBytes(certificate.tbs, tbs)) throw wrong('the certificate says something else')
  verifyCertificateSignature(certificate, issuer?.publicKey ?? certificate.publicKey)
  refuseFindings(lintCaCertificate(certificate, { issuer, trustDomain: ceremony.trust_domain }))
  if (of.certificate !== undefined && !equalBytes(of.certificate, certificate.raw)) {
    throw wrong('the certificate that was handed over is another one')
  }
  checkTokens(transcript, ceremony)

  const { required, public_keys } = ceremony.operators
  if (operators.required !== required) throw wrong('the file wants other operators')
  const signers = new Map<string, string>()
  for (const [name, publicKey] of operators.signing) {
    if (!public_keys.has(name)) throw wrong(`the file names no operator ${name}`)
    const signature = of.signatures.get(name)
    if (signature === undefined) throw wrong(`the signature of ${name} is missing`)
    if (!hasSigned(publicKey, { transcript: document, signature })) {
      throw wrong(`the signature of ${name} is not by that key over this transcript`)
    }
    signers.set(name, sha256(publicKey))
  }
  if (new Set(signers.values()).size < required) {
    throw wrong(`${required} operators must sign it and ${signers.size} did`)
  }
  return { transcript, certificate, signers }
}

/** PKCS#11 v2.40 §4.9: made in the token, never out of it, never to be changed. */
const guarded: readonly (readonly [string, boolean])[] = [
  ['CKA_SENSITIVE', true],
  ['CKA_ALWAYS_SENSITIVE', true],
  ['CKA_EXTRACTABLE', false],
  ['CKA_NEVER_EXTRACTABLE', true],
  ['CKA_LOCAL', true],
  ['CKA_MODIFIABLE', false],
]

/** Each key that the file places on a token is said to be there, under that label, and guarded; and no other. */
function checkTokens({ key, issuer }: Transcript, ceremony: CeremonyFile): void {
  const isOnToken = ceremony.key.kind === 'generate' || ceremony.key.kind === 'existing'
  checkToken(key.on_token, isOnToken ? ceremony.key : undefined)
  checkToken(issuer?.on_token, ceremony.issuer)
}

function checkToken(
  facts: Transcript['key']['on_token'],
  meant: Pick<TokenSettings, 'token_label' | 'token_serial' | 'label'> | undefined,
): void {
  if (meant === undefined) {
    if (facts !== undefined) throw wrong(`the file does not place ${facts.label} on a token`)
    return
  }
  if (facts === undefined) throw wrong('it does not say where the key is')
  const isMeant =
    facts.label === meant.label &&
    facts.token_label === meant.token_label &&
    (meant.token_serial ?? facts.token_serial) === facts.token_serial
  if (!isMeant) {
    throw wrong(
      `${facts.label} on token ${facts.token_label} (${facts.token_serial}) is not the key of the file`,
    )
  }
  for (const [name, value] of guarded) {
    if (facts.attributes.get(name) !== value) {
      throw wrong(`${name} of ${facts.label} is not ${value}`)
    }
  }
}

const wrong = (why: string, cause?: unknown): AssayError =>
  new AssayError('failed-precondition', `the transcript cannot be trusted: ${why}`, {
    reason: 'transcript-wrong',
    cause,
  })
