import {
  type DerOptions,
  derTag,
  isPrintable,
  oid,
  printableString,
  readElement,
  readOid,
  readText,
  sequence,
  set,
  utf8String,
} from './der.ts'

/** Attribute types of X.520 by their usual short names. */
export const attributeType = {
  commonName: '2.5.4.3',
  serialNumber: '2.5.4.5',
  country: '2.5.4.6',
  locality: '2.5.4.7',
  stateOrProvince: '2.5.4.8',
  organization: '2.5.4.10',
  organizationalUnit: '2.5.4.11',
} as const

const shortNames: ReadonlyMap<string, string> = new Map([
  [attributeType.commonName, 'CN'],
  [attributeType.serialNumber, 'serialNumber'],
  [attributeType.country, 'C'],
  [attributeType.locality, 'L'],
  [attributeType.stateOrProvince, 'ST'],
  [attributeType.organization, 'O'],
  [attributeType.organizationalUnit, 'OU'],
])

/** One attribute of a distinguished name. */
export interface NameAttribute {
  /** Object identifier, dotted: see {@link attributeType}. */
  readonly type: string
  readonly value: string
}

/** The attributes of a Name (RFC 5280 §4.1.2.4) in order; several of one RDN just follow each other. */
export function parseName(der: Uint8Array, options?: DerOptions): NameAttribute[] {
  const attributes: NameAttribute[] = []
  const element = readElement(der, options)
  if (element.tag !== derTag.sequence) throw new SyntaxError('invalid name: it is not a sequence')
  const names = element.reader()
  while (!names.done) {
    const relative = names.expect(derTag.set).reader()
    do {
      const pair = relative.expect(derTag.sequence).reader()
      const type = readOid(pair.next())
      attributes.push({ type, value: readText(pair.next()) })
      pair.end()
    } while (!relative.done)
  }
  return attributes
}

/** A Name with one attribute in each RDN. */
export function encodeName(attributes: readonly NameAttribute[]): Uint8Array {
  return sequence(
    ...attributes.map(({ type, value }) => {
      const text = isPrintable(value) ? printableString(value) : utf8String(value)
      return set(sequence(oid(type), text))
    }),
  )
}

/** A name for people, in the order of the certificate: `C=US, O=SPIRE`. Not for comparing. */
export function nameText(attributes: readonly NameAttribute[]): string {
  return attributes
    .map(
      ({ type, value }) =>
        `${shortNames.get(type) ?? type}=${value.replace(/[,\\\p{C}]/gu, escaped)}`,
    )
    .join(', ')
}

const escaped = (character: string): string =>
  character === ',' || character === '\\'
    ? `\\${character}`
    : `\\u{${character.codePointAt(0)?.toString(16)}}`
