import { createHash } from 'node:crypto'
import { parseCertificate } from '#pki/certificate.ts'
import type { Connection } from '#rpc/client.ts'
import { FeedDefinition } from '#rpc/gen/assay/server/v1/feed.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { selector, selectorSet } from '#spiffe/selector.ts'
import { parseSpiffeId, type SpiffeId } from '#spiffe/spiffe-id.ts'
import type { EnrolmentState } from '../../src/server/datastore/datastore.ts'
import { newInventoryRecord } from '../../src/server/node/tpm-inventory.ts'
import { type LiveServer, trustDomain } from './live-server.ts'
import { newNode } from './records.ts'

/** The hash of an endorsement key that a node of this name might have. */
export const endorsementKeyHash = (name: string): string =>
  createHash('sha256').update(name).digest('hex')

/** How a node is to look. */
export interface FleetNode {
  readonly name: string
  readonly agentVersion?: string
  /** It never tells that it has the newest bundle. */
  readonly isSlow?: boolean
}

/** Nodes of a server, by hundreds: those that are there have connections of their own, those with a TPM are noted. */
export class Fleet implements AsyncDisposable {
  readonly #live: LiveServer
  readonly #stop = new AbortController()
  readonly #running: Promise<void>[] = []
  readonly #connections: Connection[] = []

  constructor(live: LiveServer) {
    this.#live = live
  }

  /** A node that is there: it joins by a token of its name, holds its stream open, and reports. */
  async join({ name, agentVersion = '0.1.0', isSlow = false }: FleetNode): Promise<SpiffeId> {
    await this.#live.local.client(AgentDefinition).createJoinToken({ ttl: 600, token: name })
    const { id, identity } = await this.#live.attestWith(name)
    const [leaf = new Uint8Array()] = identity.certificates
    const { notAfterSeconds, authorityKeyId } = parseCertificate(leaf)
    const connection = this.#live.connect(identity)
    this.#connections.push(connection)
    const feed = connection.client(FeedDefinition)
    const authorityId = authorityKeyId?.toHex() ?? ''
    const first = Promise.withResolvers<void>()
    const follow = async (): Promise<void> => {
      const updates = feed.watch({ agentVersion }, { signal: this.#stop.signal })
      for await (const { bundle } of updates) {
        if (bundle !== undefined && !isSlow) {
          await feed.report({
            bundleSequenceNumber: bundle.sequenceNumber,
            authorities: [{ authorityId, svids: 3, expiresAt: notAfterSeconds }],
          })
        }
        first.resolve()
      }
    }
    this.#running.push(
      follow().catch((error: unknown) => {
        // It was banned, the server went, or the test is over.
        first.reject(error)
      }),
    )
    await first.promise
    return id
  }

  /** Notes a node with a TPM in the datastore, which is then known and not there. */
  async record(node: {
    readonly name: string
    readonly serialNumber: string
    readonly expiresAtSeconds: number
    readonly agentVersion?: string
  }): Promise<void> {
    const { name, serialNumber, expiresAtSeconds, agentVersion = '0.1.0' } = node
    const hash = endorsementKeyHash(name)
    await this.#live.datastore.putNode({
      ...newNode(name, {
        attestationType: 'tpm',
        serialNumber,
        expiresAtSeconds,
        canReattest: true,
        selectors: selectorSet([selector('tpm', `ek:${hash}`), selector('tpm', `node:${name}`)]),
        agentVersion,
        attestedAtSeconds: this.#nowSeconds(),
      }),
      agentId: parseSpiffeId(`spiffe://${trustDomain}/spire/agent/tpm/${hash}`),
    })
  }

  /** Notes TPMs in the inventory. */
  async know(name: string, state: EnrolmentState): Promise<void> {
    const hash = endorsementKeyHash(name)
    await this.#live.datastore.putInventory([
      {
        ...newInventoryRecord(hash, state, this.#nowSeconds()),
        nodeName: name,
        lastAddress: '192.0.2.7:40112',
      },
    ])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the test is over'))
    await Promise.all(this.#running)
    for (const connection of this.#connections) connection.close()
  }

  #nowSeconds(): number {
    return Math.floor(this.#live.clock.now().epochMilliseconds / 1000)
  }
}
