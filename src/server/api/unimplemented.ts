import { AssayError } from '#base/errors.ts'

/** A method that answers UNIMPLEMENTED and says why. */
export function unimplemented(why: string): () => Promise<never> {
  return async () => {
    throw new AssayError('unimplemented', why, { reason: 'unimplemented' })
  }
}
