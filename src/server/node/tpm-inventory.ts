import type { Clock } from '#base/clock.ts'
import { sourceOf } from '#rpc/source-address.ts'
import type {
  Datastore,
  EnrolmentState,
  InventoryRecord,
  TpmClock,
} from '../datastore/datastore.ts'

/** Most TPMs that wait for an operator: whoever makes up endorsement keys cannot fill the datastore. */
export const maxPending = 1000

/** Most of them from one address: nor can anybody alone push out those that others wait for. */
export const maxPendingFromAddress = 100

/** The datastore's inventory as the TPM node attestor works with it: as its `TpmInventory`. */
export class DatastoreTpmInventory {
  readonly #datastore: Datastore
  readonly #clock: Clock

  constructor(datastore: Datastore, clock: Clock) {
    this.#datastore = datastore
    this.#clock = clock
  }

  record(endorsementKeyHash: string): Promise<InventoryRecord | undefined> {
    return this.#datastore.inventoryRecord(endorsementKeyHash)
  }

  /**
   * Notes a TPM that an operator may let in. When too many are pending the one that was seen longest ago is
   * forgotten: a node that is there knocks again and again, an invented one need not.
   */
  async knock(endorsementKeyHash: string, address: string, description: string): Promise<void> {
    const seen = { lastAddress: address, lastSeenSeconds: this.#nowSeconds(), description }
    if ((await this.#datastore.inventoryRecord(endorsementKeyHash)) === undefined) {
      await this.#makeRoom(address)
    }
    await this.#datastore.writeInventory(endorsementKeyHash, (present) => ({
      ...(present ?? newInventoryRecord(endorsementKeyHash, 'pending', seen.lastSeenSeconds)),
      ...seen,
    }))
  }

  async recordClock(
    endorsementKeyHash: string,
    address: string,
    advance: (present: InventoryRecord | undefined) => TpmClock,
  ): Promise<void> {
    const seen = { lastAddress: address, lastSeenSeconds: this.#nowSeconds() }
    await this.#datastore.writeInventory(endorsementKeyHash, (present) => ({
      ...(present ?? newInventoryRecord(endorsementKeyHash, 'allowed', seen.lastSeenSeconds)),
      ...seen,
      clock: advance(present),
    }))
  }

  async #makeRoom(address: string): Promise<void> {
    const { items } = await this.#datastore.listInventory('pending', {
      pageSize: 0,
      pageToken: '',
    })
    const source = sourceOf(address)
    const near = items.filter(({ lastAddress }) => sourceOf(lastAddress) === source)
    const crowd = near.length >= maxPendingFromAddress ? near : items
    if (crowd === items && items.length < maxPending) return
    const oldest = crowd.reduce((a, b) => (b.lastSeenSeconds < a.lastSeenSeconds ? b : a))
    // An operator may have said something of it since it was read.
    await this.#datastore.deleteInventory(oldest.endorsementKeyHash, 'pending')
  }

  #nowSeconds(): number {
    return Math.floor(this.#clock.now().epochMilliseconds / 1000)
  }
}

/** The record of a TPM of which only this is known. `firstSeenSeconds`: Unix time. */
export const newInventoryRecord = (
  endorsementKeyHash: string,
  state: EnrolmentState,
  firstSeenSeconds: number,
): InventoryRecord => ({
  endorsementKeyHash,
  state,
  nodeName: '',
  lastAddress: '',
  firstSeenSeconds,
  lastSeenSeconds: 0,
  description: '',
  clock: undefined,
})
