import { concatBytes, equalBytes } from '#base/bytes.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { DerReader, derTag } from '#pki/der.ts'
import { isSameKey } from '../verify/certificate-quirks.ts'
import { withUnique } from '../verify/endorsement-key.ts'
import { type PublicArea, writePublicArea } from '../wire/public-area.ts'
import { padRight, subjectPublicKeyInfo } from '../wire/public-key.ts'
import {
  attestationKeyTemplate,
  type EndorsementKeyProfile,
  type EndorsementKeyProfileName,
  endorsementKeyProfiles,
  issuerCertificateIndexes,
} from '../wire/templates.ts'
import {
  createEndorsementPrimary,
  type LoadedKey,
  loadedKey,
  policyOr,
  policySecret,
  readHandles,
  readNv,
  readNvPublic,
  readPublic,
  startPolicySession,
} from './commands.ts'
import { deviceProblem } from './problems.ts'
import type { PolicySession } from './session.ts'
import type { Tpm } from './tpm.ts'
import { responseCode, TpmError, tpmResponseCode } from './tpm-error.ts'

/** How an agent uses the endorsement hierarchy. */
export interface EndorsementOptions {
  /** Which endorsement key; undefined: the first profile that has a certificate, or the first of all. */
  readonly profile: EndorsementKeyProfileName | undefined
  /** Of the endorsement hierarchy; empty unless the site has set one. */
  readonly hierarchyPassword: Uint8Array
}

/** The endorsement key, loaded, with what the TPM holds about it. */
export interface LoadedEndorsementKey {
  readonly profile: EndorsementKeyProfile
  readonly key: LoadedKey
  /** DER: its certificate, then what may be its issuers; empty when there is none. */
  readonly certificates: readonly Uint8Array[]
}

const handleRange = {
  nvCertificates: 0x01c00000,
  loadedSessions: 0x02000000,
  transient: 0x80000000,
  persistentEndorsement: 0x81010000,
} as const
/** The handles the TCG sets aside for persistent endorsement keys end here (Registry of Reserved Handles §2.3). */
const lastPersistentEndorsement = 0x8101ffff
const policySessionType = 0x03

const maxCertificates = 8
const maxCertificateBytes = 8192

/**
 * Loads the endorsement key: from a persistent handle if it is there, else made anew by its template, which
 * gives the same key every time.
 *
 * @throws AssayError reason `tpm-endorsement-certificate` when the TPM holds a certificate of another key.
 * @throws TpmError; RangeError for answers that are not well-formed.
 */
export async function loadEndorsementKey(
  tpm: Tpm,
  options: EndorsementOptions,
): Promise<LoadedEndorsementKey> {
  const indexes = new Set(await readHandles(tpm, handleRange.nvCertificates))
  const profile = chooseProfile(indexes, options.profile)
  const certificates = await readCertificates(tpm, profile, indexes)
  const template = await withNonce(tpm, profile, indexes)
  const key =
    (await findPersistent(tpm, profile.template)) ??
    (await createEndorsementPrimary(tpm, template, options.hierarchyPassword))
  const [certificate] = certificates
  if (certificate !== undefined && !isFor(certificate, key.area)) {
    await key[Symbol.asyncDispose]()
    throw deviceProblem('tpm-endorsement-certificate', `endorsement key ${profile.name}`)
  }
  return { profile, key, certificates }
}

/** The attestation key: the same key every time. */
export function createAttestationKey(
  tpm: Tpm,
  { hierarchyPassword }: EndorsementOptions,
): Promise<LoadedKey> {
  return createEndorsementPrimary(tpm, attestationKeyTemplate, hierarchyPassword)
}

/**
 * A session that may use an endorsement key: always by the policy of its profile, because its password, where
 * it has one, is refused while the TPM is in lockout (EK Credential Profile §B.6).
 */
export async function startEndorsementSession(
  tpm: Tpm,
  { profile, key }: LoadedEndorsementKey,
  { hierarchyPassword }: EndorsementOptions,
): Promise<PolicySession> {
  const session = await startSession(tpm, key)
  try {
    await policySecret(tpm, session, hierarchyPassword)
    if (profile.policyBranches !== undefined) await policyOr(tpm, session, profile.policyBranches)
    return session
  } catch (error) {
    await tpm.release(session.handle)
    throw error
  }
}

/**
 * Frees what an agent that was killed has left in a TPM without a resource manager: objects that have the form
 * of our keys. Others' are left alone.
 */
export async function flushLeftovers(tpm: Tpm): Promise<void> {
  if (tpm.managed) return
  for (const handle of await readHandles(tpm, handleRange.transient)) {
    const area = await readOurs(tpm, handle)
    if (area !== undefined) await tpm.flush(handle)
  }
}

/** The public area of an object that has the form of our keys, else undefined. */
async function readOurs(tpm: Tpm, handle: number): Promise<PublicArea | undefined> {
  const templates = [
    attestationKeyTemplate,
    ...endorsementKeyProfiles.map(({ template }) => template),
  ]
  try {
    const area = await readPublic(tpm, handle)
    return templates.some((template) => isMadeBy(template, area)) ? area : undefined
  } catch (error) {
    if (error instanceof RangeError) return undefined // a kind of object we never make
    throw error
  }
}

/**
 * Starts a session; where there is no place for one and no resource manager to find one, policy sessions an
 * agent that was killed may have left are flushed first.
 */
async function startSession(tpm: Tpm, key: LoadedKey): Promise<PolicySession> {
  const start = () => startPolicySession(tpm, key, key.area.nameAlgorithm)
  try {
    return await start()
  } catch (error) {
    if (tpm.managed || !isOutOfSessions(error)) throw error
    for (const handle of await readHandles(tpm, handleRange.loadedSessions))
      if (handle >>> 24 === policySessionType) await tpm.flush(handle)
    return await start()
  }
}

function isOutOfSessions(error: unknown): boolean {
  const code = error instanceof TpmError ? tpmResponseCode(error.rc) : undefined
  return code === responseCode.sessionMemory || code === responseCode.sessionHandles
}

function chooseProfile(
  indexes: ReadonlySet<number>,
  wanted: EndorsementKeyProfileName | undefined,
): EndorsementKeyProfile {
  const profile =
    wanted === undefined
      ? (endorsementKeyProfiles.find(({ certificateIndex }) => indexes.has(certificateIndex)) ??
        endorsementKeyProfiles[0])
      : endorsementKeyProfiles.find(({ name }) => name === wanted)
  if (profile === undefined) throw new RangeError(`there is no endorsement key ${wanted}`)
  return profile
}

async function readCertificates(
  tpm: Tpm,
  { certificateIndex }: EndorsementKeyProfile,
  indexes: ReadonlySet<number>,
): Promise<Uint8Array[]> {
  if (!indexes.has(certificateIndex)) return []
  const own = cutCertificates(await readIndex(tpm, certificateIndex)).slice(0, 1)
  if (own.length === 0) return []
  const { first, last } = issuerCertificateIndexes
  const chunks: Uint8Array[] = []
  for (const index of [...indexes].sort((a, b) => a - b))
    if (index >= first && index <= last) chunks.push(await readIndex(tpm, index))
  return [...own, ...cutCertificates(concatBytes(...chunks))].slice(0, maxCertificates)
}

async function readIndex(tpm: Tpm, index: number): Promise<Uint8Array> {
  return await readNv(tpm, await readNvPublic(tpm, index))
}

/**
 * The DER certificates at the beginning of an NV content, which may have a TCG header before them
 * (`10 01 00 ‖ length`, PC Client Implementation §7.3.2) and fill of 00 or ff after them.
 */
export function cutCertificates(content: Uint8Array): Uint8Array[] {
  const hasHeader = content[0] === 0x10 && content[1] === 0x01 && content[2] === 0x00
  const reader = new DerReader(hasHeader ? content.subarray(5) : content, { lenient: true })
  const found: Uint8Array[] = []
  while (reader.peek() === derTag.sequence) {
    try {
      const { raw } = reader.next()
      if (raw.length <= maxCertificateBytes) found.push(raw)
    } catch (error) {
      if (error instanceof SyntaxError) break // it begins like a certificate and is cut short
      throw error
    }
  }
  return found
}

async function withNonce(
  tpm: Tpm,
  { template, nonceIndex }: EndorsementKeyProfile,
  indexes: ReadonlySet<number>,
): Promise<PublicArea> {
  if (nonceIndex === undefined || !indexes.has(nonceIndex)) return template
  const nonce = await readIndex(tpm, nonceIndex)
  return template.type === 'rsa'
    ? { ...template, modulus: padRight(nonce, template.modulus.length) }
    : { ...template, x: padRight(nonce, template.x.length) }
}

async function findPersistent(tpm: Tpm, template: PublicArea): Promise<LoadedKey | undefined> {
  for (const handle of await readHandles(tpm, handleRange.persistentEndorsement)) {
    if (handle > lastPersistentEndorsement) return undefined
    const area = await readPublic(tpm, handle).catch((error: unknown) => {
      if (error instanceof RangeError) return undefined // a kind of key we do not use
      throw error
    })
    if (area !== undefined && isMadeBy(template, area)) return loadedKey(tpm, handle, area)
  }
  return undefined
}

/** Whether `area` is `template` with a key in it. */
function isMadeBy(template: PublicArea, area: PublicArea): boolean {
  const rebuilt = withUnique(template, area)
  return rebuilt !== undefined && equalBytes(writePublicArea(rebuilt), writePublicArea(area))
}

function isFor(certificate: Uint8Array, area: PublicArea): boolean {
  try {
    const { publicKey } = parseCertificate(certificate, { lenient: true })
    return isSameKey(publicKey, subjectPublicKeyInfo(area), new Set())
  } catch (error) {
    if (error instanceof SyntaxError) return true // for the server to judge and to name
    throw error
  }
}
