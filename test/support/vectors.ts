import { readFileSync } from 'node:fs'

/** The data of a file in `test/vectors`, whose form the test knows. */
export const readVectors = <T>(name: string): T =>
  JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), 'utf8'))
