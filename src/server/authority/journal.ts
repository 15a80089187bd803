import { messageOf } from '#base/errors.ts'
import type { KeyType } from '../plugin/key-manager/key-manager.ts'
import type { Slot, Validity } from './slot.ts'

/** The two kinds of authority a server has. */
export type AuthorityKindName = 'x509' | 'jwt'

/** An authority as it was made: what the bundle shows of it. */
export interface IssuedAuthority extends Validity {
  /** X.509: the subject key identifier, lower-case hex. JWT: the `kid`. */
  readonly authorityId: string
  /** DER. X.509: the certificate. JWT: SubjectPublicKeyInfo. */
  readonly content: Uint8Array
  /** Of an X.509 authority that another CA has certified. */
  readonly upstream?: UpstreamChain
  /** What the post-quantum bundle shows of it: as `content`, of the ML-DSA key that was made beside it. */
  readonly pq?: Uint8Array
}

/** What an authority's certificate chains to. DER. */
export interface UpstreamChain {
  /** From the CA that certified it up to the one below the root; empty when the root did. */
  readonly intermediates: readonly Uint8Array[]
  /** What the bundle has in place of the authority itself. */
  readonly root: Uint8Array
}

interface RecordHead {
  readonly slot: Slot
  /** The name the key manager has the key under. */
  readonly keyId: string
  readonly keyType: KeyType
  /** Unix time at which its preparation began. */
  readonly startedAtSeconds: number
  /** Unix time at which the last of what it signed expires, as far as it was noted. Zero: it has signed nothing. */
  readonly signedUntilSeconds: number
  /**
   * The same of X.509-SVIDs that were signed for operators, whom nobody asks to replace them, and of CAs for downstream
   * servers. Undefined: none.
   */
  readonly mintedUntilSeconds?: number
}

/** An authority that is being made. Its key may exist, it may be in the bundle: making it again comes to the same. */
export interface PreparingRecord extends RecordHead {
  readonly state: 'preparing'
  /** Undefined until there is a key. */
  readonly issued: IssuedAuthority | undefined
}

/**
 * An authority that has been made:
 *
 * - `prepared`: it is in the bundle; nothing is signed with it yet.
 * - `active`: it signs.
 * - `old`: it signs no more, and stays in the bundle until what it signed has expired.
 */
export interface IssuedRecord extends RecordHead {
  readonly state: 'prepared' | 'active' | 'old'
  readonly issued: IssuedAuthority
}

export type AuthorityRecord = PreparingRecord | IssuedRecord

/** A rotation that an operator has asked for and that is not done yet. */
export interface RotationRecord {
  /** The authority that was active when it was asked for. */
  readonly predecessorId: string
  /** Unix time. */
  readonly startedAtSeconds: number
  /** Whether the predecessor is to be taken out of use. */
  readonly retire: boolean
}

/** Everything one server has to remember about its authorities, in the order in which they were begun. */
export interface AuthorityJournal {
  /** Unix time of the newest issue that was noted, to see a clock that went back by. Zero: none. */
  readonly newestIssueSeconds: number
  readonly x509: readonly AuthorityRecord[]
  readonly jwt: readonly AuthorityRecord[]
  readonly rotations: Readonly<Partial<Record<AuthorityKindName, RotationRecord>>>
}

export const emptyJournal: AuthorityJournal = {
  newestIssueSeconds: 0,
  x509: [],
  jwt: [],
  rotations: {},
}

/** 1: without `rotations` and `signedUntilSeconds`. */
const version = 2
/** Room for as many old authorities as there may be, with post-quantum keys and the certificates above them. */
const maxCharacters = 2 ** 24

/** The document {@link parseJournal} reads. */
export function encodeJournal(journal: AuthorityJournal): string {
  const encode = (record: AuthorityRecord): object => ({
    ...record,
    issued: record.issued && encodeIssued(record.issued),
  })
  return JSON.stringify({
    version,
    newestIssueSeconds: journal.newestIssueSeconds,
    x509: journal.x509.map(encode),
    jwt: journal.jwt.map(encode),
    rotations: journal.rotations,
  })
}

function encodeIssued({ content, upstream, pq, ...issued }: IssuedAuthority): object {
  return {
    ...issued,
    content: content.toBase64(),
    pq: pq?.toBase64(),
    upstream: upstream && {
      intermediates: upstream.intermediates.map((der) => der.toBase64()),
      root: upstream.root.toBase64(),
    },
  }
}

/**
 * Reads a journal, strictly: unknown members, other versions, two records active or two under way, and a key
 * named twice are refused, because a server that guessed here could sign with the wrong key.
 *
 * @throws SyntaxError that names the member.
 */
export function parseJournal(document: string): AuthorityJournal {
  if (document.length > maxCharacters) throw invalid(`longer than ${maxCharacters} characters`)
  let value: unknown
  try {
    value = JSON.parse(document)
  } catch (cause) {
    throw new SyntaxError(`invalid authority journal: ${messageOf(cause)}`, { cause })
  }
  const root = members(value, '', ['version', 'newestIssueSeconds', 'x509', 'jwt', 'rotations'])
  if (root.version !== 1 && root.version !== version) {
    throw invalid(`version ${JSON.stringify(root.version)} is newer than ${version}`)
  }
  return {
    newestIssueSeconds: seconds(root.newestIssueSeconds, 'newestIssueSeconds'),
    x509: readRecords(root.x509, 'x509'),
    jwt: readRecords(root.jwt, 'jwt'),
    rotations: root.version === 1 ? {} : readRotations(root.rotations),
  }
}

function readRotations(value: unknown): AuthorityJournal['rotations'] {
  const { x509, jwt } = members(value, 'rotations', ['x509', 'jwt'])
  return {
    ...(x509 !== undefined && { x509: readRotation(x509, 'rotations.x509') }),
    ...(jwt !== undefined && { jwt: readRotation(jwt, 'rotations.jwt') }),
  }
}

function readRotation(value: unknown, where: string): RotationRecord {
  const rotation = members(value, where, ['predecessorId', 'startedAtSeconds', 'retire'])
  if (typeof rotation.retire !== 'boolean') throw invalid(`${where}.retire is not true or false`)
  return {
    predecessorId: text(rotation.predecessorId, `${where}.predecessorId`),
    startedAtSeconds: seconds(rotation.startedAtSeconds, `${where}.startedAtSeconds`),
    retire: rotation.retire,
  }
}

function readRecords(value: unknown, kind: AuthorityKindName): AuthorityRecord[] {
  if (!Array.isArray(value)) throw invalid(`${kind} is not a list`)
  const records = value.map((item: unknown, i) => readRecord(item, `${kind}[${i}]`))
  const inState = (...states: AuthorityRecord['state'][]): AuthorityRecord[] =>
    records.filter(({ state }) => states.includes(state))
  if (inState('active').length > 1) throw invalid(`${kind} has two active authorities`)
  if (inState('preparing', 'prepared').length > 1) {
    throw invalid(`${kind} has two authorities under way`)
  }
  if (new Set(records.map(({ keyId }) => keyId)).size !== records.length) {
    throw invalid(`${kind} names a key twice`)
  }
  return records
}

function readRecord(value: unknown, where: string): AuthorityRecord {
  const record = members(value, where, [
    'slot',
    'keyId',
    'keyType',
    'startedAtSeconds',
    'signedUntilSeconds',
    'mintedUntilSeconds',
    'state',
    'issued',
  ])
  const head = {
    slot: oneOf(record.slot, ['A', 'B'], `${where}.slot`),
    keyId: text(record.keyId, `${where}.keyId`),
    keyType: oneOf(
      record.keyType,
      ['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096'],
      `${where}.keyType`,
    ),
    startedAtSeconds: seconds(record.startedAtSeconds, `${where}.startedAtSeconds`),
    signedUntilSeconds: seconds(record.signedUntilSeconds ?? 0, `${where}.signedUntilSeconds`),
    ...(record.mintedUntilSeconds !== undefined && {
      mintedUntilSeconds: seconds(record.mintedUntilSeconds, `${where}.mintedUntilSeconds`),
    }),
  }
  const state = oneOf(record.state, ['preparing', 'prepared', 'active', 'old'], `${where}.state`)
  const issued =
    record.issued === undefined ? undefined : readIssued(record.issued, `${where}.issued`)
  if (state === 'preparing') return { ...head, state, issued }
  if (issued === undefined) throw invalid(`${where} is ${state} and has no issued`)
  return { ...head, state, issued }
}

function readIssued(value: unknown, where: string): IssuedAuthority {
  const issued = members(value, where, [
    'authorityId',
    'content',
    'issuedAtSeconds',
    'expiresAtSeconds',
    'upstream',
    'pq',
  ])
  const read = {
    authorityId: text(issued.authorityId, `${where}.authorityId`),
    content: base64(issued.content, `${where}.content`),
    issuedAtSeconds: seconds(issued.issuedAtSeconds, `${where}.issuedAtSeconds`),
    expiresAtSeconds: seconds(issued.expiresAtSeconds, `${where}.expiresAtSeconds`),
    ...(issued.upstream !== undefined && {
      upstream: readUpstream(issued.upstream, `${where}.upstream`),
    }),
    ...(issued.pq !== undefined && { pq: base64(issued.pq, `${where}.pq`) }),
  }
  if (read.expiresAtSeconds <= read.issuedAtSeconds) {
    throw invalid(`${where} expires before it is issued`)
  }
  return read
}

function readUpstream(value: unknown, where: string): UpstreamChain {
  const { intermediates, root } = members(value, where, ['intermediates', 'root'])
  if (!Array.isArray(intermediates)) throw invalid(`${where}.intermediates is not a list`)
  return {
    intermediates: intermediates.map((der: unknown, i) =>
      base64(der, `${where}.intermediates[${i}]`),
    ),
    root: base64(root, `${where}.root`),
  }
}

function members<Name extends string>(
  value: unknown,
  where: string,
  known: readonly Name[],
): Partial<Record<Name, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(`${where || 'it'} is not an object`)
  }
  const names: readonly string[] = known
  const unknown = Object.keys(value).find((name) => !names.includes(name))
  if (unknown !== undefined) {
    throw invalid(`${where === '' ? '' : `${where}.`}${unknown.slice(0, 64)} is unknown`)
  }
  return value
}

function text(value: unknown, where: string): string {
  if (typeof value === 'string' && value !== '' && value.length <= 256) return value
  throw invalid(`${where} is not a text of 1 to 256 characters`)
}

function base64(value: unknown, where: string): Uint8Array {
  try {
    if (typeof value !== 'string' || value === '') throw new SyntaxError('it is no text')
    return Uint8Array.fromBase64(value, { lastChunkHandling: 'strict' })
  } catch (cause) {
    throw new SyntaxError(`invalid authority journal: ${where} is not base64`, { cause })
  }
}

function seconds(value: unknown, where: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw invalid(`${where} is not a time in seconds`)
}

function oneOf<T extends string>(value: unknown, allowed: readonly T[], where: string): T {
  const found = allowed.find((candidate) => candidate === value)
  if (found !== undefined) return found
  throw invalid(`${where} is none of ${allowed.join(', ')}`)
}

const invalid = (why: string): SyntaxError => new SyntaxError(`invalid authority journal: ${why}`)
