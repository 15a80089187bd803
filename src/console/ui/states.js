/**
 * @typedef {'square' | 'triangle' | 'hollow' | 'circle' | 'ring' | 'diamond' | 'cross' | 'crossed'} Shape
 * @typedef {{ name: string, label: string, shape: Shape, meaning: string, next: string }} State
 */

/**
 * Every state of a node, the good ones first. Each has a shape, so that nobody needs to tell colours apart.
 *
 * @type {readonly State[]}
 */
export const states = [
  {
    name: 'live',
    label: 'Live',
    shape: 'square',
    meaning: 'Attested, there, and with the newest trust bundle.',
    next: '',
  },
  {
    name: 'lacking',
    label: 'Lacking the bundle',
    shape: 'triangle',
    meaning: 'There, and has not told yet that all it serves has the newest trust bundle.',
    next: 'It should have it within seconds. If not: `assay agent status` on the node.',
  },
  {
    name: 'away',
    label: 'Away',
    shape: 'hollow',
    meaning: 'Its SVID is valid, and nothing was heard of it for a minute.',
    next: 'If it should be there: `systemctl status assay-agent` on the node, then the network.',
  },
  {
    name: 'pending',
    label: 'Pending approval',
    shape: 'circle',
    meaning: 'Its TPM has knocked, and nobody has said whether it may join.',
    next: 'Compare the hash with `assay tpm fingerprint` on the node, then `assay inventory approve HASH --node-name NAME`.',
  },
  {
    name: 'expected',
    label: 'Expected',
    shape: 'ring',
    meaning: 'Approved, and has not attested yet.',
    next: 'Start `assay-agent` on it.',
  },
  {
    name: 'expired',
    label: 'Expired',
    shape: 'diamond',
    meaning: 'Its SVID has expired: it has been away for longer than that.',
    next: 'It attests again when its agent starts. If it is gone for good: `assay agent evict`.',
  },
  {
    name: 'denied',
    label: 'Denied',
    shape: 'cross',
    meaning: 'An operator has refused its TPM.',
    next: 'If that was a mistake: `assay inventory approve HASH`.',
  },
  {
    name: 'banned',
    label: 'Banned',
    shape: 'crossed',
    meaning: 'An operator has banned it: it gets nothing.',
    next: 'If it may come back: `assay inventory approve HASH` or, without a TPM, `assay agent evict`.',
  },
]

/** What waits for somebody comes first: the order of the map and of the table. */
export const byNeed = [
  'pending',
  'expired',
  'lacking',
  'away',
  'denied',
  'banned',
  'expected',
  'live',
]

/** @param {string} name */
export const stateOf = (name) =>
  states.find((state) => state.name === name) ?? {
    name,
    label: name,
    shape: /** @type {Shape} */ ('hollow'),
    meaning: '',
    next: '',
  }

/**
 * Draws the shape of a state.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Shape} shape
 * @param {{ x: number, y: number, size: number, color: string }} place
 */
export function drawShape(context, shape, { x, y, size, color }) {
  context.fillStyle = color
  context.strokeStyle = color
  const line = Math.max(1, size / 6)
  context.lineWidth = line
  const half = size / 2
  const path = (/** @type {readonly (readonly [number, number])[]} */ points) => {
    context.beginPath()
    for (const [dx, dy] of points) context.lineTo(x + dx, y + dy)
    context.closePath()
  }
  const crossing = (/** @type {number} */ inset) => {
    context.beginPath()
    context.moveTo(x + inset, y + inset)
    context.lineTo(x + size - inset, y + size - inset)
    context.moveTo(x + size - inset, y + inset)
    context.lineTo(x + inset, y + size - inset)
    context.stroke()
  }
  switch (shape) {
    case 'square':
      context.fillRect(x, y, size, size)
      break
    case 'triangle':
      path([
        [half, 0],
        [size, size],
        [0, size],
      ])
      context.fill()
      break
    case 'hollow':
      context.strokeRect(x + line / 2, y + line / 2, size - line, size - line)
      break
    case 'circle':
      context.beginPath()
      context.arc(x + half, y + half, half, 0, 2 * Math.PI)
      context.fill()
      break
    case 'ring':
      context.beginPath()
      context.arc(x + half, y + half, half - line / 2, 0, 2 * Math.PI)
      context.stroke()
      break
    case 'diamond':
      path([
        [half, 0],
        [size, half],
        [half, size],
        [0, half],
      ])
      context.fill()
      break
    case 'cross':
      crossing(line / 2)
      break
    case 'crossed':
      context.strokeRect(x + line / 2, y + line / 2, size - line, size - line)
      crossing(line)
      break
  }
}

/**
 * The shape of a state, as large as text.
 *
 * @param {string} name
 */
export function symbol(name) {
  const canvas = document.createElement('canvas')
  canvas.className = 'symbol'
  canvas.setAttribute('aria-hidden', 'true')
  canvas.dataset['state'] = name
  paint(canvas)
  return canvas
}

/** @param {HTMLCanvasElement} canvas one that {@link symbol} made */
export function paint(canvas) {
  const name = canvas.dataset['state'] ?? ''
  const ratio = Math.max(1, devicePixelRatio)
  canvas.width = 14 * ratio
  canvas.height = 14 * ratio
  const context = canvas.getContext('2d')
  if (context === null) return
  context.scale(ratio, ratio)
  drawShape(context, stateOf(name).shape, { x: 1, y: 1, size: 12, color: colorOf(name) })
}

/** @param {string} name of a state, as the style sheet colours it now */
export const colorOf = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--state-${name}`).trim() || 'gray'
