import { concatBytes } from '#base/bytes.ts'
import type { Credential } from '../verify/credential.ts'
import { type HashAlgorithm, hashId } from '../wire/algorithms.ts'
import { algorithm, permanentHandle } from '../wire/constants.ts'
import { parseWhole, sized, u8, u16, u32 } from '../wire/marshal.ts'
import { type PcrSelection, readPcrSelections, writePcrSelection } from '../wire/pcr-selection.ts'
import { nameOf, type PublicArea, readPublicArea, writePublicArea } from '../wire/public-area.ts'
import { shareSecret } from '../wire/shared-secret.ts'
import { deviceProblem } from './problems.ts'
import { type Authorization, deriveSessionKey, type PolicySession } from './session.ts'
import { type Entity, entity, type Tpm } from './tpm.ts'

// The commands of TPM 2.0 Part 3 that an agent needs, each with the section that defines it.

/** A key in the TPM. Disposing of it frees its place, unless it is persistent. */
export interface LoadedKey extends Entity, AsyncDisposable {
  readonly area: PublicArea
}

/** Making an RSA key takes some chips tens of seconds. */
const createDeadlineMs = 120_000
const none = new Uint8Array(0)
const transient = 0x80

/** A password, which is empty unless the site has set one. */
export const password = (value: Uint8Array = none): Authorization => ({
  kind: 'password',
  password: value,
})

/** TPM2_CreatePrimary in the endorsement hierarchy (§24.1). The key's own password is empty. */
export async function createEndorsementPrimary(
  tpm: Tpm,
  template: PublicArea,
  hierarchyPassword: Uint8Array,
): Promise<LoadedKey> {
  const { handle, reply } = await tpm.execute({
    code: 0x131,
    name: 'TPM2_CreatePrimary',
    handles: [entity(permanentHandle.endorsement)],
    authorizations: [password(hierarchyPassword)],
    parameters: concatBytes(
      sized(sized(), sized()), // no password, no data
      sized(writePublicArea(template)),
      sized(), // outsideInfo
      u32(0), // creationPCR
    ),
    returnsHandle: true,
    deadlineMs: createDeadlineMs,
  })
  return loadedKey(tpm, handle, parseWhole(reply.sized(), readPublicArea))
}

/** A key that is there already, by its handle. */
export function loadedKey(tpm: Tpm, handle: number, area: PublicArea): LoadedKey {
  return {
    handle,
    area,
    name: nameOf(area),
    async [Symbol.asyncDispose]() {
      if (handle >>> 24 === transient) await tpm.release(handle)
    },
  }
}

/** TPM2_ReadPublic (§12.4). @throws RangeError for a key of another kind than RSA and ECC. */
export async function readPublic(tpm: Tpm, handle: number): Promise<PublicArea> {
  const { reply } = await tpm.execute({
    code: 0x173,
    name: 'TPM2_ReadPublic',
    handles: [entity(handle)],
  })
  return parseWhole(reply.sized(), readPublicArea)
}

/** TPM2_StartAuthSession (§11.1): a policy session, salted to `salt` and with parameter encryption. */
export async function startPolicySession(
  tpm: Tpm,
  salt: LoadedKey,
  hash: HashAlgorithm,
): Promise<PolicySession> {
  const caller = tpm.random.bytes(16)
  const { secret, encrypted } = shareSecret(salt.area, 'SECRET', tpm.random)
  const { handle, reply } = await tpm.execute({
    code: 0x176,
    name: 'TPM2_StartAuthSession',
    handles: [salt, entity(permanentHandle.null)],
    parameters: concatBytes(
      sized(caller),
      sized(encrypted),
      u8(1), // TPM_SE_POLICY
      u16(algorithm.aes),
      u16(128),
      u16(algorithm.cfb),
      u16(hashId(hash)),
    ),
    returnsHandle: true,
  })
  const nonceTpm = reply.sized()
  return { handle, hash, nonceTpm, key: deriveSessionKey(hash, secret, { tpm: nonceTpm, caller }) }
}

/** TPM2_PolicySecret(TPM_RH_ENDORSEMENT) (§23.4). */
export async function policySecret(
  tpm: Tpm,
  session: PolicySession,
  hierarchyPassword: Uint8Array,
): Promise<void> {
  await tpm.execute({
    code: 0x151,
    name: 'TPM2_PolicySecret',
    handles: [entity(permanentHandle.endorsement), entity(session.handle)],
    authorizations: [password(hierarchyPassword)],
    parameters: concatBytes(sized(), sized(), sized(), u32(0)),
  })
}

/** TPM2_PolicyOR (§23.6). */
export async function policyOr(
  tpm: Tpm,
  session: PolicySession,
  branches: readonly Uint8Array[],
): Promise<void> {
  await tpm.execute({
    code: 0x171,
    name: 'TPM2_PolicyOR',
    handles: [entity(session.handle)],
    parameters: concatBytes(u32(branches.length), ...branches.map((branch) => sized(branch))),
  })
}

/**
 * TPM2_ActivateCredential (§12.5): the secret in a credential that was made for `attestationKey`. `session` has
 * satisfied the endorsement key's policy; it ends with the command when that succeeds.
 */
export async function activateCredential(
  tpm: Tpm,
  keys: { readonly attestationKey: LoadedKey; readonly endorsementKey: LoadedKey },
  session: PolicySession,
  credential: Credential,
): Promise<Uint8Array> {
  const { reply } = await tpm.execute({
    code: 0x147,
    name: 'TPM2_ActivateCredential',
    handles: [keys.attestationKey, keys.endorsementKey],
    authorizations: [password(), { kind: 'policy', session }],
    parameters: concatBytes(sized(credential.credentialBlob), sized(credential.encryptedSecret)),
  })
  return reply.sized(64)
}

/** A TPMS_ATTEST and the TPMT_SIGNATURE over it. */
export interface SignedAttestation {
  readonly attested: Uint8Array
  readonly signature: Uint8Array
}

/** TPM2_Quote (§18.4). An inactive bank is quoted too, as no register at all. */
export async function quote(
  tpm: Tpm,
  key: LoadedKey,
  { qualifyingData, selection }: { qualifyingData: Uint8Array; selection: PcrSelection },
): Promise<SignedAttestation> {
  const { reply } = await tpm.execute({
    code: 0x158,
    name: 'TPM2_Quote',
    handles: [key],
    authorizations: [password()],
    parameters: concatBytes(
      sized(qualifyingData),
      u16(algorithm.null),
      writePcrSelection(selection),
    ),
  })
  return { attested: reply.sized(), signature: reply.rest() }
}

/**
 * TPM2_PCR_Read (§22.4), as often as it takes: a TPM gives eight values at a time.
 *
 * @throws AssayError `failed-precondition`, reason `tpm-pcr-bank`, when the bank is not active.
 */
export async function readPcrs(
  tpm: Tpm,
  { bank, indexes }: PcrSelection,
): Promise<Map<number, Uint8Array>> {
  const values = new Map<number, Uint8Array>()
  while (values.size < indexes.length) {
    const missing = indexes.filter((index) => !values.has(index))
    const { reply } = await tpm.execute({
      code: 0x17e,
      name: 'TPM2_PCR_Read',
      parameters: writePcrSelection({ bank, indexes: missing }),
    })
    reply.u32() // pcrUpdateCounter
    const [read] = readPcrSelections(reply)
    reply.u32() // how many values follow
    if (read === undefined || !read.indexes.some((index) => missing.includes(index)))
      throw deviceProblem('tpm-pcr-bank', `no ${bank} registers ${missing.join(',')}`)
    for (const index of read.indexes) values.set(index, reply.sized(64))
  }
  return values
}

/** An NV index: TPMA_NV (Part 2 §13.4), size in bytes, Name. */
export interface NvIndex extends Entity {
  readonly attributes: number
  readonly bytes: number
}

/** TPM2_NV_ReadPublic (§31.6). */
export async function readNvPublic(tpm: Tpm, index: number): Promise<NvIndex> {
  const { reply } = await tpm.execute({
    code: 0x169,
    name: 'TPM2_NV_ReadPublic',
    handles: [entity(index)],
  })
  const { attributes, bytes } = parseWhole(reply.sized(), (area) => {
    area.take(6) // nvIndex, nameAlg
    const bits = area.u32()
    area.sized(64) // authPolicy
    return { attributes: bits, bytes: area.u16() }
  })
  return { handle: index, name: reply.sized(66), attributes, bytes }
}

const nvAuthRead = 0x00040000
/** Some TPMs give less than they could (PT_NV_BUFFER_MAX); all give this. */
const nvChunkBytes = 512

/** TPM2_NV_Read (§31.13) of a whole index, by its own empty password or, where it has none, the owner's. */
export async function readNv(tpm: Tpm, index: NvIndex): Promise<Uint8Array> {
  const reader = (index.attributes & nvAuthRead) !== 0 ? index : entity(permanentHandle.owner)
  const chunks: Uint8Array[] = []
  for (let at = 0; at < index.bytes; at += nvChunkBytes) {
    const { reply } = await tpm.execute({
      code: 0x14e,
      name: 'TPM2_NV_Read',
      handles: [reader, index],
      authorizations: [password()],
      parameters: concatBytes(u16(Math.min(nvChunkBytes, index.bytes - at)), u16(at)),
    })
    chunks.push(reply.sized())
  }
  return concatBytes(...chunks)
}

const capability = { handles: 1, pcrs: 5, properties: 6 } as const

/** TPM2_GetCapability(TPM_CAP_HANDLES) (§30.2): the handles in use from `first` on, of its kind, at most 254. */
export async function readHandles(tpm: Tpm, first: number): Promise<number[]> {
  const reply = await getCapability(tpm, capability.handles, first, 254)
  return Array.from({ length: Math.min(reply.u32(), 254) }, () => reply.u32())
}

/** TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES): `count` properties from `first` on, by TPM_PT. */
export async function readProperties(
  tpm: Tpm,
  first: number,
  count: number,
): Promise<Map<number, number>> {
  const reply = await getCapability(tpm, capability.properties, first, count)
  return new Map(
    Array.from({ length: Math.min(reply.u32(), 254) }, () => [reply.u32(), reply.u32()] as const),
  )
}

/** TPM2_GetCapability(TPM_CAP_PCRS): the TPM_ALG_IDs of the banks that have registers. */
export async function readActiveBanks(tpm: Tpm): Promise<number[]> {
  const reply = await getCapability(tpm, capability.pcrs, 0, 1)
  return Array.from({ length: Math.min(reply.u32(), 16) }, () => ({
    id: reply.u16(),
    map: reply.take(reply.u8()),
  }))
    .filter(({ map }) => map.some((byte) => byte !== 0))
    .map(({ id }) => id)
}

async function getCapability(tpm: Tpm, kind: number, property: number, count: number) {
  const { reply } = await tpm.execute({
    code: 0x17a,
    name: 'TPM2_GetCapability',
    parameters: concatBytes(u32(kind), u32(property), u32(count)),
  })
  reply.u8() // moreData
  reply.u32() // capability
  return reply
}
