import { utf8Text } from '#base/bytes.ts'

/** Most text that is read, in characters: some hundred certificates. */
const maxPemCharacters = 4 * 2 ** 20
const maxBlocks = 4096

/** One block of textual encoding (RFC 7468), 64 characters a line, with a newline at its end. */
export function encodePem(label: string, der: Uint8Array): string {
  const lines = der.toBase64().match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

/**
 * The contents of every block labelled `label`, in order. Text between blocks and blocks with another label
 * are passed over.
 *
 * @throws SyntaxError that says which block, counted from 1 and by its line, is not well-formed.
 */
export function parsePem(text: string | Uint8Array, label: string): Uint8Array[] {
  const whole = typeof text === 'string' ? text : utf8Text(text)
  if (whole.length > maxPemCharacters) {
    throw new SyntaxError(`invalid PEM: longer than ${maxPemCharacters} characters`)
  }
  const found: Uint8Array[] = []
  let open: { label: string; line: number; body: string[] } | undefined
  let blocks = 0
  for (const [index, untrimmed] of whole.split('\n').entries()) {
    const line = untrimmed.trim()
    const boundary = /^-----(BEGIN|END) ([ -~]{1,64})-----$/.exec(line)
    const bad = (why: string): SyntaxError =>
      new SyntaxError(`invalid PEM: block ${blocks} (line ${open?.line ?? index + 1}): ${why}`)
    if (boundary === null) {
      if (line.startsWith('-----')) throw bad(`line ${index + 1} is not a boundary`)
      open?.body.push(line)
    } else if (boundary[1] === 'BEGIN') {
      if (open !== undefined) throw bad(`no END ${open.label} before the next block begins`)
      if (++blocks > maxBlocks) throw bad(`more than ${maxBlocks} blocks`)
      open = { label: boundary[2] ?? '', line: index + 1, body: [] }
    } else {
      if (open === undefined) throw bad('END without BEGIN')
      if (open.label !== boundary[2]) throw bad(`BEGIN ${open.label} ends as ${boundary[2]}`)
      if (open.label === label) found.push(decodeBody(open.body, bad))
      open = undefined
    }
  }
  if (open !== undefined) {
    throw new SyntaxError(`invalid PEM: block ${blocks} (line ${open.line}): no END ${open.label}`)
  }
  return found
}

function decodeBody(lines: readonly string[], bad: (why: string) => SyntaxError): Uint8Array {
  try {
    const der = Uint8Array.fromBase64(lines.join(''), { lastChunkHandling: 'strict' })
    if (der.length === 0) throw new SyntaxError('it is empty')
    return der
  } catch (cause) {
    throw Object.assign(bad('its content is not base64'), { cause })
  }
}
