import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Datastore, InventoryRecord, TpmClock } from '../datastore/datastore.ts'

/** Most TPMs that wait for an operator: whoever makes up endorsement keys cannot fill the datastore. */
export const maxPending = 1000

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

  /** @throws AssayError `resource-exhausted` when {@link maxPending} are waiting already. */
  async knock(endorsementKeyHash: string, address: string, description: string): Promise<void> {
    const seen = { lastAddress: address, lastSeenSeconds: this.#nowSeconds(), description }
    if ((await this.#datastore.inventoryRecord(endorsementKeyHash)) !== undefined) {
      await this.#datastore.updateInventory(endorsementKeyHash, (record) => ({
        ...record,
        ...seen,
      }))
      return
    }
    const { items } = await this.#datastore.listInventory('pending', {
      pageSize: maxPending,
      pageToken: '',
    })
    if (items.length >= maxPending) {
      throw new AssayError(
        'resource-exhausted',
        `cannot note TPM ${endorsementKeyHash}: ${maxPending} are pending already; allow or deny some`,
        { reason: 'inventory-full' },
      )
    }
    await this.#datastore.putInventory([
      {
        ...seen,
        endorsementKeyHash,
        state: 'pending',
        nodeName: '',
        firstSeenSeconds: seen.lastSeenSeconds,
        clock: undefined,
      },
    ])
  }

  async recordClock(
    endorsementKeyHash: string,
    address: string,
    advance: (present: InventoryRecord | undefined) => TpmClock,
  ): Promise<void> {
    const seen = { lastAddress: address, lastSeenSeconds: this.#nowSeconds() }
    if ((await this.#datastore.inventoryRecord(endorsementKeyHash)) !== undefined) {
      await this.#datastore.updateInventory(endorsementKeyHash, (record) => ({
        ...record,
        ...seen,
        clock: advance(record),
      }))
      return
    }
    await this.#datastore.putInventory([
      {
        ...seen,
        endorsementKeyHash,
        state: 'allowed',
        nodeName: '',
        description: '',
        firstSeenSeconds: seen.lastSeenSeconds,
        clock: advance(undefined),
      },
    ])
  }

  #nowSeconds(): number {
    return Math.floor(this.#clock.now().epochMilliseconds / 1000)
  }
}
