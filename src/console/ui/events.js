const storageKey = 'assay-console-key'

/** Why nothing can be shown. */
export class Refused extends Error {}

/**
 * The key of this browser: of the link, which works once, or of an earlier visit in this tab. It is kept where only
 * pages of this very address can read it.
 */
async function key() {
  const token = location.hash.slice(1)
  if (token !== '') {
    // Not in the history, nor in what somebody copies from the address bar.
    history.replaceState(null, '', location.pathname)
    const response = await fetch('/session', { method: 'POST', body: token })
    if (response.ok) {
      sessionStorage.setItem(storageKey, (await response.json()).key)
    }
  }
  return sessionStorage.getItem(storageKey)
}

/**
 * Asks for something with the key of this browser.
 *
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
export async function request(path, signal) {
  const response = await fetch(path, {
    headers: { authorization: `Bearer ${sessionStorage.getItem(storageKey)}` },
    ...(signal && { signal }),
  })
  if (response.status === 401) throw new Refused('the key is not known')
  return response
}

/** @param {number} milliseconds */
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

/**
 * Follows what the console tells, and again when it was away, for good.
 *
 * @param {{
 *   onEvent: (topic: string, data: unknown) => void,
 *   onState: (state: 'open' | 'lost' | 'refused') => void,
 * }} handlers
 */
export async function follow({ onEvent, onState }) {
  if ((await key().catch(() => null)) === null) return onState('refused')
  for (;;) {
    try {
      const response = await request('/events')
      if (response.ok && response.body !== null) {
        onState('open')
        await read(response.body, onEvent)
      }
    } catch (error) {
      if (error instanceof Refused) return onState('refused')
    }
    onState('lost')
    await pause(1000)
  }
}

/**
 * Reads server-sent events, of which each has a name and one line of data.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @param {(topic: string, data: unknown) => void} onEvent
 */
async function read(body, onEvent) {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  /** @type {string[]} */
  let parts = []
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    const text = decoder.decode(value, { stream: true })
    parts.push(text)
    // The two line feeds may come in two pieces.
    if (!text.includes('\n\n') && !text.startsWith('\n')) continue
    const events = parts.join('').split('\n\n')
    parts = [events.pop() ?? '']
    for (const event of events) {
      const match = /^event: (\w+)\ndata: (.*)$/.exec(event)
      if (match !== null) onEvent(match[1] ?? '', JSON.parse(match[2] ?? ''))
    }
  }
}
