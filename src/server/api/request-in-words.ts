import { AssayError } from '#base/errors.ts'
import { State } from '#rpc/gen/assay/server/v1/inventory.ts'
import { shortName } from '../administrators/calls.ts'

/** How much of a text people are shown. */
const maxWords = 300
const maxShown = 16 * 1024
const maxNamed = 5

/**
 * JSON with the members of each object in order of their names, bytes as base64 and 64-bit numbers as text: the same for
 * the same decoded request, whatever it looked like on the wire.
 */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_name, member: unknown) => {
    if (typeof member === 'bigint') return String(member)
    if (member instanceof Uint8Array) return member.toBase64()
    if (member === null || typeof member !== 'object' || Array.isArray(member)) return member
    return Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
}

/** A request as JSON for people: without secrets, and cut off when it is long. */
export function requestForPeople(request: unknown): string {
  const text = withoutSecrets(request)
  return text.length <= maxShown
    ? text
    : `${text.slice(0, maxShown)}… (${text.length - maxShown} characters more)`
}

/**
 * Nobody can agree to what they are not shown.
 *
 * @throws AssayError `failed-precondition`, reason `approval-too-long`, for a request that people see only a part of.
 */
export function verifyShownWhole(method: string, request: unknown): void {
  const { length } = withoutSecrets(request)
  if (length <= maxShown) return
  throw new AssayError(
    'failed-precondition',
    `cannot ask for approval to ${words(method, request)}: somebody could come to have rights by it, and of its ${length} characters as JSON only ${maxShown} can be shown to who agrees; split it into smaller requests`,
    { reason: 'approval-too-long' },
  )
}

function withoutSecrets(request: unknown): string {
  const { token, ...rest } = request as { readonly token?: string }
  return canonicalJson(
    token === undefined || token === '' ? rest : { ...rest, token: '(not shown)' },
  )
}

/** What a call is to do, in words that go on after "cannot". */
export function words(method: string, request: unknown): string {
  const text = sentence(shortName(method), request)
  return text.length <= maxWords ? text : `${text.slice(0, maxWords)}…`
}

function sentence(name: string, request: unknown): string {
  const authority =
    /^LocalAuthority\/(Prepare|Activate|Taint|Revoke)(X509|JWT|WIT)(Upstream)?Authority$/.exec(name)
  if (authority !== null) return authorityWords(authority, request)
  switch (name) {
    case 'Keys/Rotate': {
      const { kind, retire, force, afterSeconds } = request as RotateFields
      const how = force ? ', waiting for nobody' : ''
      const after = afterSeconds === undefined ? '' : `, activating it after ${afterSeconds} s`
      const end = retire ? ', then revoke the old one and destroy its key' : ''
      return `rotate the ${kind} authority${how}${after}${end}`
    }
    case 'Keys/Resume':
      return "try the HSM's PIN again"
    case 'Keys/AcceptClock':
      return "take the server's clock for right"
    case 'Bundle/AppendBundle':
      return 'add authorities to our own bundle'
    case 'Inventory/Import': {
      const { records } = request as { readonly records: readonly RecordFields[] }
      return `import ${named(records.map(recordWords), 'TPM')}`
    }
    case 'Inventory/SetState': {
      const { state, endorsementKeyHash, nodeName } = request as RecordFields
      const verb = state === State.ALLOWED ? 'allow' : `set to state ${state}`
      return `${verb} the TPM ${endorsementKeyHash}${nodeName === '' ? '' : ` as ${nodeName}`}`
    }
    case 'Inventory/Delete':
      return `forget the TPM ${(request as RecordFields).endorsementKeyHash} and its node`
    case 'Entry/BatchCreateEntry':
    case 'Entry/BatchUpdateEntry': {
      const { entries } = request as { readonly entries: readonly EntryFields[] }
      const verb = name === 'Entry/BatchCreateEntry' ? 'create' : 'update'
      return `${verb} ${entriesInWords(entries)}`
    }
    case 'Entry/BatchDeleteEntry':
      return `delete ${named((request as { readonly ids: readonly string[] }).ids, 'entry', 'entries')}`
    default:
      return `call ${name} with ${requestForPeople(request)}`
  }
}

function authorityWords(
  [, verb = '', kind = '', upstream]: RegExpExecArray,
  request: unknown,
): string {
  const what = `${upstream === undefined ? '' : 'upstream '}${kind === 'X509' ? 'X.509' : kind} authority`
  if (verb === 'Prepare') return `prepare a new ${what}`
  const { authorityId, subjectKeyId } = request as { authorityId?: string; subjectKeyId?: string }
  const end = verb === 'Revoke' ? ', for good' : ''
  return `${verb.toLowerCase()} the ${what} ${authorityId ?? subjectKeyId ?? ''}${end}`
}

interface RotateFields {
  readonly kind: string
  readonly retire: boolean
  readonly force: boolean
  readonly afterSeconds?: number | undefined
}
interface RecordFields {
  readonly endorsementKeyHash: string
  readonly nodeName: string
  readonly state: number
}
interface EntryFields {
  readonly id: string
  readonly spiffeId?: { readonly trustDomain: string; readonly path: string } | undefined
  readonly admin: boolean
  readonly downstream: boolean
}

const recordWords = ({ endorsementKeyHash, nodeName, state }: RecordFields): string => {
  const as = nodeName === '' ? '' : ` as ${nodeName}`
  const not =
    state === State.STATE_UNSPECIFIED || state === State.ALLOWED ? '' : ` in state ${state}`
  return `${endorsementKeyHash.slice(0, 16)}…${as}${not}`
}

function entryWords({ id, spiffeId, admin, downstream }: EntryFields): string {
  const of = spiffeId === undefined ? id : `spiffe://${spiffeId.trustDomain}${spiffeId.path}`
  return `${of}${admin ? ' (admin)' : ''}${downstream ? ' (downstream)' : ''}`
}

/** What gives rights is counted, and named before all else. */
function entriesInWords(entries: readonly EntryFields[]): string {
  const flagged = entries.filter(hasFlag)
  const counted =
    flagged.length === 0 ? '' : ` (with the admin or downstream flag: ${flagged.length})`
  const inOrder = [...flagged, ...entries.filter((entry) => !hasFlag(entry))]
  return named(inOrder.map(entryWords), `entry${counted}`, `entries${counted}`)
}

const hasFlag = ({ admin, downstream }: EntryFields): boolean => admin || downstream

/** `2 TPMs: a, b` */
function named(items: readonly string[], one: string, many = `${one}s`): string {
  const more = items.length > maxNamed ? ` and ${items.length - maxNamed} more` : ''
  return `${items.length} ${items.length === 1 ? one : many}: ${items.slice(0, maxNamed).join(', ')}${more}`
}
