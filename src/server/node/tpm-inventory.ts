import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type {
  Datastore,
  EnrolmentState,
  InventoryRecord,
  TpmClock,
} from '../datastore/datastore.ts'

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
    if ((await this.#datastore.inventoryRecord(endorsementKeyHash)) === undefined) {
      await this.#requireRoom(endorsementKeyHash)
    }
    await this.#datastore.writeInventory(endorsementKeyHash, (present) => ({
      ...(present ?? newRecord(endorsementKeyHash, 'pending', seen.lastSeenSeconds)),
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
      ...(present ?? newRecord(endorsementKeyHash, 'allowed', seen.lastSeenSeconds)),
      ...seen,
      clock: advance(present),
    }))
  }

  async #requireRoom(endorsementKeyHash: string): Promise<void> {
    const { items } = await this.#datastore.listInventory('pending', {
      pageSize: maxPending,
      pageToken: '',
    })
    if (items.length < maxPending) return
    throw new AssayError(
      'resource-exhausted',
      `cannot note TPM ${endorsementKeyHash}: ${maxPending} are pending already; allow or deny some`,
      { reason: 'inventory-full' },
    )
  }

  #nowSeconds(): number {
    return Math.floor(this.#clock.now().epochMilliseconds / 1000)
  }
}

const newRecord = (
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
