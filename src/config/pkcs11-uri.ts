import { utf8Bytes, utf8Text } from '#base/bytes.ts'

/** A token and how to reach it, as a PKCS#11 URI names them (RFC 7512). */
export interface Pkcs11Uri {
  /** CKA_LABEL of the token. */
  readonly token: string
  readonly serial: string | undefined
  readonly model: string | undefined
  readonly manufacturer: string | undefined
  /** Absolute path of the PKCS#11 library. */
  readonly modulePath: string
  /** Absolute path of the file with the PIN; undefined when the URI names none. */
  readonly pinFile: string | undefined
}

const maxUriBytes = 4096

/** How long a value may be: the fields of CK_TOKEN_INFO (PKCS#11 v2.40 §3.2), and the path of a file. */
const longest = {
  token: 32,
  manufacturer: 32,
  model: 16,
  serial: 16,
  'module-path': 4095,
  'pin-source': 4095,
} as const

type Name = keyof typeof longest

const pathNames = ['token', 'serial', 'model', 'manufacturer'] as const
const queryNames = ['module-path', 'pin-source'] as const

/** RFC 7512 §2.3: `*pk11-pchar` of a path attribute's value, and `*pk11-qchar` of a query attribute's. */
const pathValue = /^(?:[A-Za-z0-9\-._~:[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*$/
const queryValue = /^(?:[A-Za-z0-9\-._~:[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})*$/

/** Why some attributes of RFC 7512 are not taken, beyond being of no use here. */
const reasons: Readonly<Record<string, string>> = {
  'pin-value': 'a PIN is never written here: put it into a file and name that by pin-source',
  'module-name': 'a name is looked up in places that differ: give the whole path, by module-path',
  'slot-id': 'slot numbers change by themselves: give token, and serial where it is not unique',
}

/**
 * Reads a URI that names one token, strictly: each attribute at most once, none that would be ignored, and every
 * character as RFC 7512 §2.3 has it. A PIN in the URI is refused, and is in no message.
 *
 * @throws SyntaxError that names the attribute.
 */
export function parsePkcs11Uri(uri: string): Pkcs11Uri {
  if (utf8Bytes(uri).length > maxUriBytes) throw invalid(`it is longer than ${maxUriBytes} bytes`)
  const scheme = 'pkcs11:'
  if (!uri.toLowerCase().startsWith(scheme)) throw invalid(`it does not begin with ${scheme}`)
  const [path = '', query] = splitOnce(uri.slice(scheme.length), '?')
  const values = new Map<Name, string>()
  readAttributes(path, { separator: ';', names: pathNames, pattern: pathValue, values })
  if (query !== undefined) {
    readAttributes(query, { separator: '&', names: queryNames, pattern: queryValue, values })
  }
  const token = values.get('token')
  const modulePath = values.get('module-path')
  const pinSource = values.get('pin-source')
  if (token === undefined) throw invalid('token is missing')
  if (modulePath === undefined) throw invalid('module-path is missing')
  return {
    token,
    serial: values.get('serial'),
    model: values.get('model'),
    manufacturer: values.get('manufacturer'),
    modulePath: absolute(modulePath, 'module-path'),
    pinFile: pinSource === undefined ? undefined : pinFileOf(pinSource),
  }
}

function readAttributes(
  text: string,
  into: {
    readonly separator: string
    readonly names: readonly Name[]
    readonly pattern: RegExp
    readonly values: Map<Name, string>
  },
): void {
  if (text === '') return
  const { separator, names, pattern, values } = into
  for (const attribute of text.split(separator)) {
    const [given = '', value] = splitOnce(attribute, '=')
    const name = names.find((candidate) => candidate === given)
    if (name === undefined) throw unknown(given, names)
    if (value === undefined) throw invalid(`${name} has no value`)
    if (!pattern.test(value))
      throw invalid(`${name} has a character that has to be percent-encoded`)
    if (values.has(name)) throw invalid(`${name} is there twice`)
    values.set(name, decode(name, value))
  }
}

function unknown(given: string, names: readonly Name[]): SyntaxError {
  const why = Object.hasOwn(reasons, given) ? reasons[given] : undefined
  if (why !== undefined) return invalid(`${given} is refused: ${why}`)
  // What is not a name may be a value that was written without one.
  const shown = /^[a-z0-9-]{1,32}$/.test(given) ? given : 'something that is no name'
  return invalid(`${shown} is not taken here, only ${names.join(', ')}`)
}

function decode(name: Name, value: string): string {
  const bytes: number[] = []
  for (let at = 0; at < value.length; at++) {
    const isEncoded = value[at] === '%'
    bytes.push(isEncoded ? Number.parseInt(value.slice(at + 1, at + 3), 16) : value.charCodeAt(at))
    if (isEncoded) at += 2
  }
  if (bytes.length === 0 || bytes.length > longest[name] || bytes.includes(0)) {
    throw invalid(`${name} is not 1 to ${longest[name]} bytes without NUL`)
  }
  try {
    return utf8Text(Uint8Array.from(bytes))
  } catch {
    throw invalid(`${name} is not UTF-8`)
  }
}

/** RFC 7512 §2.4: a `file:` URI, or a path; `|command` is for others. */
function pinFileOf(source: string): string {
  const path = /^file:(?:\/\/)?(\/(?!\/).*)$/s.exec(source)?.[1] ?? source
  return absolute(path, 'pin-source')
}

function absolute(path: string, name: Name): string {
  if (path.startsWith('/')) return path
  throw invalid(`${name} is not the absolute path of a file`)
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

const invalid = (why: string): SyntaxError => new SyntaxError(`invalid pkcs#11 uri: ${why}`)
