/** Received bytes that wait for their reader, in front of a Node readable whose own buffer holds one piece at most. */
export interface PieceQueue {
  /** The reader asked: from the readable's `read`. */
  want(): void;
  receive(piece: Buffer): void;
  /** The peer sends no more. */
  end(): void;
  readonly hasEnded: boolean;
  /** Empties the queue. */
  clear(): Buffer[];
}

/** Set as `readableHighWaterMark` of the readable behind a queue, so that what waits is counted here and not there. */
export const readHighWaterMark = 1;

/** @param push The readable's `push`. @param taken Called with every piece that left the queue for the reader. */
export function createPieceQueue(push: (piece: Buffer | null) => boolean, taken: (piece: Buffer) => void): PieceQueue {
  const pieces: Buffer[] = [];
  let isWanted = false;
  let hasEnded = false;
  let isEndPushed = false;

  const drain = (): void => {
    while (isWanted) {
      const piece = pieces.shift();
      if (piece === undefined) break;
      isWanted = push(piece);
      taken(piece);
    }
    if (!hasEnded || isEndPushed || pieces.length > 0) return;
    isEndPushed = true;
    push(null);
  };

  return {
    want() {
      isWanted = true;
      drain();
    },
    receive(piece) {
      pieces.push(Buffer.from(piece)); // a view would keep the whole chunk it came in alive
      drain();
    },
    end() {
      hasEnded = true;
      drain();
    },
    get hasEnded() {
      return hasEnded;
    },
    clear: () => pieces.splice(0),
  };
}
