// What the console sends, for the type checker. Nothing of this reaches the browser.

export interface ServerState {
  connected: boolean
  address: string
  why?: string
}

export interface Counts {
  x509: number
  jwt: number
  agent: number
}

export interface Check {
  name: string
  ready: boolean
  detail: string
}

export interface Summary {
  version: string
  trustDomain: string
  nowMs: number
  startedAt: number
  checks: Check[]
  entries: number
  datastoreRevision: string
  /** An agent that holds a newer state than the server; empty: there is none. */
  wentBack: string
  issued: (Counts & { at: number; refused: number })[]
  expiring: (Counts & { from: number; until: number })[]
  expiringLater: Counts
}

export interface Key {
  id: string
  type: string
  purpose: string
  state: string
  authorityId: string
  createdAt: number
  expiresAt: number
  nextEvent: string
  nextEventAt: number
  nodes: number
  svids: number
  signedUntil: number
  tainted: boolean
  isPresent: boolean
  pqParameterSet: string
}

export interface Rotation {
  kind: string
  predecessorId: string
  startedAt: number
  retire: boolean
}

export interface Keys {
  state: string
  detail: string
  where: string
  pqWhere: string
  keys: Key[]
  rotations: Rotation[]
  propagation: {
    sequenceNumber: string
    live: number
    acknowledged: number
    lacking: string[]
    away: number
  }
}

export interface RefusalGroup {
  at: number
  firstAt: number
  count: number
  requestId: string
  address: string
  attestationType: string
  subject: string
  reason: string
  message: string
  meaning: string
  remedy: string
}

export interface Refusals {
  total: number
  groups: RefusalGroup[]
}

export interface Node {
  id: string
  name: string
  state: string
  type: string
  version: string
  address: string
  attestedAt: number
  expiresAt: number
  svids: number
  description: string
}

export interface NodesUpdate {
  complete: boolean
  nodes: Node[]
  removed: string[]
}

export interface NodeDetails {
  id: string
  serialNumber: string
  canReattest: boolean
  selectors: string[]
}

export interface Problem {
  code: string
  message: string
}

/** An answer of the server, or why there is none. */
export interface Told<T> {
  data?: T
  problem?: Problem
}

/** Everything that is known, as the panels read it. */
export interface Model {
  server: ServerState | undefined
  summary: Told<Summary>
  keys: Told<Keys>
  refusals: Told<Refusals>
  /** Why nodes, or TPMs of the inventory, are not shown. */
  missing: { nodes?: Problem; inventory?: Problem }
  nodes: Map<string, Node>
  nodesKnown: boolean
  /** Unix time at the server. */
  now: number
}
